"""Clips of several things: apart by colour, each read alone."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.metrics.agreement import compare
from kinema.metrics.event_times import TimedEvent
from kinema.metrics.extractors.world import World
from kinema.metrics.several import SeveralReader, by_colour, in_turns
from kinema.world.clip import render_clips
from kinema.world.prompts import read_prompts
from kinema.world.vocabulary import COLOURS


def surface(word: str, light: np.ndarray) -> np.ndarray:
    """A colour under light (H, W) of 0..1, as uint8."""
    return (np.array(COLOURS[word]) * light[..., None] * 255).astype(np.uint8)


def test_things_that_touch_are_apart_by_colour() -> None:
    light = np.linspace(0.75, 1, 20)[None].repeat(16, 0)  # shaded, which is no other colour
    frames = np.zeros((3, 16, 20, 3), np.uint8)
    frames[:, :, :12], frames[:, :, 12:] = surface("red", light)[:, :12], surface("blue", light)[:, 12:]
    found = by_colour(frames, np.ones((3, 16, 20), bool))
    assert {colour.word for _, colour in found} == {"red", "blue"}
    for mask, colour in found:
        whole = np.arange(20) < 12 if colour.word == "red" else np.arange(20) >= 12
        assert np.array_equal(mask, np.broadcast_to(whole, (3, 16, 20)))
        assert colour.confidence == pytest.approx(whole.mean(), abs=0.02)
    (one,) = by_colour(frames[:, :, :12], np.ones((3, 16, 12), bool))
    assert one[0].all() and one[1].word == "red"


def test_a_rendered_scene_of_two_things() -> None:
    (prompt,) = read_prompts("two_objects", 1)
    (clip,) = render_clips([prompt.spec], truth=False)
    reading = SeveralReader(World("")).read(clip.frames.numpy(), 8.0)
    things = {(thing.kind.word, thing.colour.word) for thing in reading.objects}
    assert things == {(thing.kind, thing.colour) for thing in prompt.spec.objects}
    right = {row.attribute: row.right for row in compare(prompt.asked, reading)}
    assert right["kind"] and right["colour"] and right["ground"]


def test_one_thing_happens_after_the_other() -> None:
    falls, grows = TimedEvent("fall", 0.0, 1.4, 0.99), TimedEvent("grow", 1.6, 3.0, 0.8)
    idle, later = TimedEvent("move left", 0.2, 2.0, 0.6), TimedEvent("jump", 1.3, 2.9, 0.9)
    assert in_turns([[falls, grows], [idle]]) == [falls, grows]  # what is read of a thing at rest is less sure
    assert in_turns([[falls], [later]]) == [falls, later]
    assert in_turns([[idle], []]) == [idle] and in_turns([[falls, grows], [later]]) == [falls, later]


def test_nothing_is_read_of_an_empty_clip() -> None:
    assert SeveralReader(World("")).read(np.full((3, 32, 32, 3), 128, np.uint8)).objects == ()
