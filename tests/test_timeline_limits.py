"""How much work a timeline is, and how much of one is read."""

import pytest

from kinema.core.errors import KinemaError
from kinema.request import Request
from kinema.timeline import Event, Timeline, reading
from kinema.timeline.events import MOST, Order


def counted(monkeypatch, owner, name):
    calls, real = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: calls.append(args) or real(*args))
    return calls


def test_a_request_reads_each_text_once_and_looks_at_each_event_a_few_times(monkeypatch):
    texts, looks = counted(monkeypatch, reading, "_timed"), counted(monkeypatch, Order, "fault")
    timeline = " | ".join(f"{i}-{i + 1}s: the cube number {i} spins" for i in range(200))
    request = Request(prompt="cubes in a row", timeline=timeline)
    assert len(request.events) == 200 and request.asked.count("spins") == 200 and request.text.count("spins") == 200
    assert request.changed(seed=3).events == request.events
    assert len(texts) == len(set(texts)) <= 3  # as it is written, with what all share, complete
    assert len(looks) <= 40 * 200


def test_no_pattern_tries_each_length_of_a_run_of_spaces():
    """As `\\s*` does, which takes minutes for 10 000 of them where two follow each other."""
    for name in ("LOOKS_TIMED", "INSIDE", "RANGE", "PARTING", "BARE", "AT_ONCE"):
        assert r"\s*" not in getattr(reading, name).pattern.replace(r"\s*+", ""), name
    for text in ("a" + " " * 9000 + "b", "[" + " " * 9000, "a" * 9000, "1," * 5000):
        assert len(Timeline.parse(text)) == 1
    assert len(Timeline.parse("a, then " * 900 + "b")) == 901


def test_more_events_than_that_are_refused_at_their_place():
    parts = [f"{i}-{i + 1}s: a" for i in range(MOST + 1)]
    assert len(Timeline.parse("\n".join(parts[:-1]))) == MOST
    with pytest.raises(KinemaError, match=rf"^line {MOST + 1}, column 1: there are more than {MOST} events; use at "):
        Timeline.parse("\n".join(parts))
    with pytest.raises(KinemaError, match="there are more than"):
        Timeline(tuple(Event(text="a") for _ in parts))
    with pytest.raises(KinemaError, match="the text has 300001 characters; use at most 300000"):
        Timeline.parse("a" * (reading.LONGEST + 1))
