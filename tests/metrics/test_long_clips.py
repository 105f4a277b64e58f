"""What is read in long clips and of their subject, on rendered clips whose truth is known."""

import numpy as np
import pytest

from kinema.claims.long_clips import endless, in_turn
from kinema.metrics import long_clips, subject
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.viewing import Viewing
from kinema.timeline import Timeline
from kinema.world.motion import simulate
from kinema.world.render import render, render_frames
from kinema.world.spec import EventSpec, ObjectSpec, SceneSpec

SPAN = 5.0  # seconds an event
TOLD = {"bounce": "bounces", "grow": "grows", "roll left": "rolls to the left", "roll right": "rolls to the right"}


def timed(labels):
    """A prompt that gives each event its span."""
    parts = [f"{i * SPAN:g}-{(i + 1) * SPAN:g}s: the red ball {TOLD[label]} on the grass by day" for i, label in labels]
    return str(Timeline.parse(" | ".join(parts)))


def rendered(*labels, colour="red", seconds=1.2):
    """A clip of a ball in which each event takes `seconds` before and behind the middle of its span."""
    events = []
    for i, label in enumerate(labels):
        action, _, direction = label.partition(" ")
        middle = (i + 0.5) * SPAN
        events.append(EventSpec(action=action, start=middle - seconds, end=middle + seconds, direction=direction))
    spec = SceneSpec(
        seed=1,
        objects=(ObjectSpec(kind="ball", colour=colour),),
        events=tuple(events),
        num_frames=round(SPAN * 8 * len(labels)),
    )
    frames = render_frames(simulate([spec])[0])[0].cpu().numpy()
    return Viewing(frames, 8.0, prompt=timed(list(enumerate(labels))))


@pytest.fixture(scope="module")
def world():
    return load_extractor("world")


@pytest.fixture(scope="module")
def clip():
    return rendered("roll left", "bounce", "grow")


def test_events_are_read_in_their_time(clip, world):
    assert long_clips.events_in_time(clip, world) == [True, True, True]
    other = clip.but(prompt=timed([(0, "bounce"), (1, "roll left"), (2, "grow")]))
    assert long_clips.events_in_time(other, world) == [False, False, True]
    assert long_clips.share_in_time(other, world) == pytest.approx(1 / 3) and long_clips.all_in_time(other, world) == 0


def test_parts_lie_around_their_time_and_inside_the_clip():
    clip = Viewing(np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, 3), 8.0)
    firsts = [int(long_clips.part(clip, time)[0, 0, 0, 0]) for time in (0.0, 6.25, 12.5)]
    assert firsts == [0, 38, 75] and len(long_clips.part(clip, 6.25)) == 25


def test_facts_are_those_of_the_scene(clip, world):
    right = long_clips.facts(clip, world)
    assert right >= 0.8  # a part in which the ball has left the picture tells less
    wrong = clip.but(prompt=clip.prompt.replace("red", "blue").replace("by day", "at night"))
    assert long_clips.facts(wrong, world) == pytest.approx(right - 0.5)


def test_a_subject_that_stays_drifts_little_and_one_that_changes_much(world):
    red, blue = rendered("bounce"), rendered("bounce", colour="blue")
    changed = Viewing(np.concatenate([red.frames[:10], blue.frames[10:]]), 8.0)
    empty = Viewing(np.concatenate([red.frames[:10], np.full_like(red.frames[10:], 120)]), 8.0)
    assert subject.hue_drift(red, world) < 5 < 40 < subject.hue_drift(changed, world)
    assert subject.hue_drift(empty, world) > 50 and subject.area_drift(empty, world) > 1.8
    assert subject.area_drift(red, world) < 0.15 and subject.jumps(red, world) == 0 < subject.jumps(empty, world)


def test_size_and_place_are_those_of_the_truth(world):
    event = EventSpec(action="grow", start=0.2, end=2.8)
    drawn = render(simulate([SceneSpec(seed=1, objects=(ObjectSpec(kind="ball", colour="red"),), events=(event,))])[0])
    truth = drawn.mask[0].numpy() > 0
    found = subject.subject(Viewing(drawn.frames[0].numpy(), 8.0), world)
    assert np.abs(np.log2(found.area / truth.mean((1, 2)))).max() < 0.15 < np.log2(found.area[-1] / found.area[0])
    centre = [np.argwhere(there).mean(0)[::-1] / np.hypot(128, 128) for there in truth]
    assert np.abs(found.centre - centre).max() < 0.01


def test_the_path_is_as_long_as_the_truth(world):
    # A square of 16 pixels that goes 2 pixels a frame over a picture of 128, and back at once.
    mask = np.zeros((40, 128, 128), bool)
    for t in range(40):
        x = 20 + 2 * (t if t < 20 else 39 - t)
        mask[t, 40:56, x : x + 16] = True
    frames = np.where(mask[..., None], np.uint8(200), np.uint8(40)).repeat(3, -1)
    clip = Viewing(frames, 8.0, known={("mask", world.label): mask.astype(np.float32)})
    assert subject.path(clip, world) == pytest.approx(2 * 38 / 39 * 8 / np.hypot(128, 128))
    assert subject.backdrop_drift(clip, world) == 0
    masks = {("mask", world.label): mask.astype(np.float32)}
    still = Viewing(np.concatenate([frames[:20], 255 - frames[20:]]), 8.0, known=masks)
    assert subject.backdrop_drift(still, world) > 30
    mask[20:] = np.roll(mask[20:], 60, axis=1)
    jumped = Viewing(frames, 8.0, known={("mask", world.label): mask.astype(np.float32)})
    assert subject.jumps(jumped, world) == 1


@pytest.mark.parametrize("period, least, most", [(30, 0.99, 1.01), (None, -1, 0.9)])
def test_repeats_are_told_from_a_path_that_goes_on(world, period, least, most):
    t = np.arange(100)
    x = 20 + 40 * (1 + np.sin(2 * np.pi * t / period)) if period else 20 + 80 * (t / 100) ** 3 + 8 * np.sin(t**1.5 / 9)
    mask = np.zeros((100, 128, 128), bool)
    for i, left in enumerate(np.round(x).astype(int)):
        mask[i, 40:50, left : left + 10] = True
    clip = Viewing(np.zeros((100, 128, 128, 3), np.uint8), 8.0, known={("mask", world.label): mask.astype(np.float32)})
    found = subject.repeat(clip, world)
    assert found is not None and least <= found <= most


def test_cases_ask_for_what_can_be_read():
    assert [case.text.split()[3] for case in endless(3, None)] == ["bounces"] * 3
    for case in in_turn(4)(5, None):
        timeline = Timeline.parse(case.text)
        assert len(timeline) == 4 and len({event.text for event in timeline}) == 4
        assert timeline.frames(201, 8.0, 4).sum(dim=1).tolist() in (
            [13, 13, 12, 13],
            [13, 12, 13, 13],
            [13, 13, 13, 12],
        )
