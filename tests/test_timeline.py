"""Prompts in time: what is written comes back, and errors say where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.timeline import Event, Prompt, Timeline, is_timed

LETTERS = st.text(st.sampled_from("abcdef redball-é"), min_size=1, max_size=20)
TEXTS = LETTERS.map(lambda text: " ".join(text.split())).filter(bool)


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_events_in_order_come_back(texts):
    assert [e.text for e in Timeline.parse(", then ".join(texts))] == texts


@given(st.lists(st.tuples(TEXTS, st.integers(1, 4000), st.integers(0, 4000)), min_size=1, max_size=5))
def test_times_come_back_exactly(parts):
    clock, events = 0, []
    for text, length, gap in parts:
        events.append(Event(text=text, start=(clock + gap) / 1000, end=(clock + gap + length) / 1000))
        clock += gap + length
    timeline = Timeline(tuple(events))
    assert Timeline.parse(str(timeline)) == timeline


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_any_float_comes_back_exactly(a, b):
    if a != b:
        timeline = Timeline((Event(text="a", start=min(a, b), end=max(a, b)),))
        assert Timeline.parse(str(timeline)) == timeline


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_sentence(text):
    try:
        assert len(Timeline.parse(text)) >= 1
    except KinemaError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "text, events",
    [
        ("a red ball bounces, then rolls left", ["a red ball bounces", "rolls left"]),
        ("it jumps; then it falls. Then it stops", ["it jumps", "it falls", "it stops"]),
        ("it jumps and then it falls", ["it jumps", "it falls"]),
        ("it jumps, and then, it falls", ["it jumps", "it falls"]),
        ("the then famous ball", ["the then famous ball"]),
        ("a ball, thence a cube", ["a ball, thence a cube"]),
        ("2-4 people: a crowd | a fence", ["2-4 people: a crowd | a fence"]),
    ],
)
def test_words_that_order_events(text, events):
    assert [e.text for e in Timeline.parse(text)] == events


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "empty"),
        ("0-2: a", "column 1: expected a range"),
        ("0-2s: a | b", "column 11: expected a range"),
        ("0-2s: a |", "column 10: expected a range"),
        ("0-2s: a | 1-3s: b", "column 11: the event 'b' starts at 1 s, before the one ahead of it ends at 2 s"),
        ("3-2s: a", "column 1: the event 'a' lasts from 3 to 2"),
        ("0-2s:  | 2-3s: b", "column 8: the event has no text"),
        ("a | 2-3s: b", "column 1: expected a range"),
        (", then ", "column 1: nothing is ahead of 'then'"),
    ],
)
def test_errors_say_where(text, says):
    with pytest.raises(KinemaError, match=says):
        Timeline.parse(text)


def test_even_split_covers_the_clip():
    timeline = Timeline.parse("a, then b, then c").over(3.0)
    assert [(e.start, e.end) for e in timeline] == [(0, 1), (1, 2), (2, 3)]
    assert [timeline.at(t)[0].text for t in (0, 0.99, 1.0, 2.5)] == ["a", "a", "b", "c"]
    assert timeline.at(3.0) == ()


def test_given_times_must_fit_and_are_kept():
    timeline = Timeline.parse("0-1s: a | 2-3s: b")
    assert timeline.over(3.0) is timeline and timeline.at(1.5) == ()
    with pytest.raises(KinemaError, match="ends at 3 s; the video is 2.5 s"):
        timeline.over(2.5)
    with pytest.raises(KinemaError, match="no times"):
        Timeline.parse("a").at(0.0)


def test_prompt_keeps_words_and_drops_times():
    prompt = Prompt.parse("0-1s: a ball jumps | 1-2s: it falls")
    assert prompt.text == "a ball jumps, then it falls" and prompt.timeline.timed
    assert Prompt.parse(" a ball ").text == "a ball" and not is_timed("a ball")


@pytest.mark.parametrize(
    "events, says",
    [
        ((), "at least one"),
        ((Event(text="a"), Event(text="b", start=0, end=1)), "all of them or to none"),
        ((Event(text="a", start=0, end=2), Event(text="b", start=1, end=3)), "before the one ahead"),
    ],
)
def test_impossible_timelines(events, says):
    with pytest.raises(KinemaError, match=says):
        Timeline(events)


@pytest.mark.parametrize("times", [dict(start=1.0), dict(start=2, end=1), dict(start=-1, end=1), dict(start=0, end=0)])
def test_impossible_events(times):
    with pytest.raises(KinemaError):
        Event(text="a", **times)
