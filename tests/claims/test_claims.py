"""Intervals, the fixed list of prompts, and how claims are counted."""

from __future__ import annotations

import math

import pytest

from kinema.claims.adherence import Result
from kinema.claims.prompts import FOLDER, read_prompts
from kinema.claims.statistics import Share, wilson
from kinema.metrics.agreement import Row
from kinema.world.sample import is_held_out


def row(attribute: str, asked: str | None, read: str) -> Row:
    right = None if asked is None else asked == read
    return Row(attribute=attribute, asked=asked, read=read, confidence=1.0, right=right)


def test_wilson_interval() -> None:
    low, high = wilson(5, 10)
    assert low == pytest.approx(0.2366, abs=1e-4) and high == pytest.approx(0.7634, abs=1e-4)  # Wilson, 1927
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10)[1] == pytest.approx(1.0) and wilson(10, 10)[0] == pytest.approx(0.7225, abs=1e-4)
    assert math.isnan(Share(0, 0).value)
    with pytest.raises(ValueError, match="right is 3 of 2"):
        wilson(3, 2)


def test_counting() -> None:
    rows = [
        [row("events", "bounce, then move left", "bounce, then move right"), row("camera", None, "still")],
        [row("events", "bounce", "bounce"), row("camera", "still", "still")],
    ]
    result = Result("generated", rows)
    assert (result.accuracy("events"), result.accuracy("camera")) == (Share(1, 2), Share(1, 1))
    assert result.accuracy("all") == Share(1, 2)
    assert result.by_word("events") == {"bounce": Share(2, 2), "move left": Share(0, 1)}


@pytest.mark.skipif(not (FOLDER / "adherence.jsonl").is_file(), reason="the list has not been drawn")
def test_the_list_asks_for_what_its_scenes_show() -> None:
    prompts = read_prompts("adherence")
    assert len(prompts) == 200 and len({p.text for p in prompts}) == 200
    for p in prompts:
        thing = p.spec.objects[0]
        assert is_held_out(thing.kind, thing.colour, p.spec.ground)
        assert (p.asked.kind, p.asked.colour, p.asked.ground) == (thing.kind, thing.colour, p.spec.ground)
        assert p.asked.events == tuple(e.label for e in p.spec.events)
        assert p.asked.sky in (None, p.spec.sky)
        assert p.asked.camera in (None, p.spec.camera.move)
    with pytest.raises(ValueError, match="use 1 to 200"):
        read_prompts("adherence", 201)
