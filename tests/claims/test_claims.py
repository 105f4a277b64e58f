"""Intervals, the fixed list of prompts, and how claims are counted."""

from __future__ import annotations

import json
import math

import pytest
import torch

from kinema.backbones.load import load
from kinema.claims.adherence import Result, Setup, first_frames, generate_batch, judged, measure, table, to_dict
from kinema.claims.statistics import Share, wilson
from kinema.metrics.agreement import Row
from kinema.metrics.judge import Guess, Judge, JudgeNet, ObjectReading, Reading
from kinema.training.judge import NetSettings, words_of
from kinema.world.curricula import get_curriculum
from kinema.world.prompts import FOLDER, read_prompts
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


def test_two_things_are_right_together() -> None:
    (prompt,) = read_prompts("two_objects", 1)
    assert {(o.kind, o.colour) for o in prompt.asked.objects} == {("ball", "white"), ("ring", "red")}

    def read(*things: tuple[str, str]) -> Row:
        sure = [ObjectReading(Guess(kind, 0.9), Guess(colour, 0.8)) for kind, colour in things]
        guess = Guess("", 1.0)
        return judged(prompt, Reading(tuple(sure), guess, guess, guess, (), 3.0))[-1]

    right = read(("ring", "red"), ("ball", "white"))
    assert (right.attribute, right.right, right.confidence) == ("objects", True, 0.8)
    assert right.asked == right.read == "red ring + white ball"
    assert not read(("ring", "white"), ("ball", "red")).right and not read(("ball", "white")).right
    assert Result("generated", [[right]]).attributes[-2:] == ("objects", "all")


def test_a_whole_measurement(tiny_folder) -> None:  # type: ignore[no-untyped-def]
    """An untrained model and judge: every prompt is made, rendered and read once, on seeds of its own."""
    torch.manual_seed(0)
    judge = Judge(JudgeNet(words_of(get_curriculum("first"), NetSettings(frames=5, size=32, channels=(8, 8, 8)))))
    backbone = load(tiny_folder("kinema_mini"))
    prompts = read_prompts("adherence", 3)
    setup = Setup(steps=1, num_frames=5, height=32, width=32, batch=2)
    results = measure(backbone, judge, prompts, setup)
    assert [r.name for r in results] == ["generated", "rendered", "through the autoencoder"]
    assert all(len(r.rows) == 3 for r in results)
    values = first_frames(backbone, prompts[:1], setup)
    assert len(values) == 1 and 0 < values[0] < 100
    text = table(results, values)
    assert "generated, 3 clips" in text and "image to video" in text
    assert json.loads(json.dumps(to_dict(results, values, prompts, setup)))["clips"][2]["seed"] == 9
    again = generate_batch(backbone, [prompts[2].text], [9], setup)
    assert torch.equal(again, generate_batch(backbone, [prompts[2].text], [9], setup))


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


def test_the_list_of_two_things_names_both() -> None:
    prompts = read_prompts("two_objects")
    assert len(prompts) == 200 and len({p.text for p in prompts}) == 200
    for p in prompts:
        things = sorted((o.kind, o.colour) for o in p.spec.objects)
        assert sorted((o.kind, o.colour) for o in p.asked.objects) == things
        assert len({colour for _, colour in things}) == 2
        assert p.asked.events == tuple(e.label for e in p.spec.events)
