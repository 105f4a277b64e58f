"""When events of long clips begin and end, joined from parts of the length that the judge knows."""

from types import SimpleNamespace

import numpy as np
import pytest

from kinema.claims.long_events import measure, scenes
from kinema.metrics import long_clips
from kinema.metrics.asked import Span
from kinema.metrics.event_times import TimedEvent
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.metric import find
from kinema.metrics.prompt.event_timing import matched, untold
from kinema.metrics.viewing import Viewing
from kinema.world.caption import timed_caption
from kinema.world.motion import simulate
from kinema.world.render import render_frames

NUMBERS = np.arange(97, dtype=np.uint8)[:, None, None, None].repeat(3, 3)  # frames that tell which they are


class Told:
    """A timer that is told what happens, and sees of each part what lies in it; `odd` words at the edges are wrong."""

    judge = SimpleNamespace(config=SimpleNamespace(events=("none", "jump", "grow", "fall")))

    def __init__(self, *events, odd=0.0):
        self.events, self.odd = events, odd

    def read(self, parts, fps):
        assert all(len(part) == 25 for part in parts)
        return [self.see(int(part[0, 0, 0, 0]) / fps, 24 / fps) for part in parts]

    def see(self, begin, length):
        seen = []
        for word, start, end in self.events:
            a, b = max(start - begin, 0.0), min(end - begin, length)
            if b > a:
                seen.append(TimedEvent("fall" if b - a < self.odd else word, a, b, 1.0))
        return seen


def read(*events, **how):
    return [(e.word, e.start, e.end) for e in long_clips.read_times(Told(*events, **how), NUMBERS, 8.0)]


def test_cut_events_are_whole_again():
    asked = [("jump", 0.0, 2.0), ("grow", 2.0, 8.0), ("jump", 9.0, 11.5)]
    found = read(*asked)
    assert [word for word, *_ in found] == ["jump", "grow", "jump"]
    assert np.abs(np.array([f[1:] for f in found]) - [a[1:] for a in asked]).max() <= long_clips.TICK
    assert read() == []


def test_two_at_once_are_both_read():
    assert read(("jump", 1.0, 5.0), ("grow", 3.0, 8.0)) == [("jump", 1.0, 5.0), ("grow", 3.0, 8.0)]


def test_what_is_cut_short_and_taken_for_another_is_outvoted():
    assert read(("grow", 3.0, 8.0), odd=1.0) == [("grow", 3.0, 8.0)]


def test_what_parts_have_in_their_middle_counts_most():
    class Edges(Told):
        def see(self, begin, length):
            return [TimedEvent("jump", length - 1.2, length, 1.0)]  # 5 of 12 parts, 38% of their weight

    # Only at the clip's own end is there no other part to tell.
    assert all(event.start > 9 for event in long_clips.read_times(Edges(), NUMBERS, 8.0))


def test_short_pauses_are_none_and_short_events_too():
    moments = np.arange(160) * long_clips.TICK

    def share(*spans):
        return sum(((moments >= a) & (moments < b)).astype(float) for a, b in spans)

    def spans(*wanted):
        return [(e.start, round(e.end + long_clips.TICK, 4)) for e in long_clips.agreed("a", moments, share(*wanted))]

    assert spans((1, 2), (2.25, 3)) == [(1, 3)] and spans((1, 2), (3, 4)) == [(1, 2), (3, 4)]
    assert spans((1, 1.25), (3, 10)) == [(3, 10)]


def test_events_are_paired_with_the_nearest_of_their_word_in_order():
    early, late = Span("a", 0, 1), Span("a", 5, 6)
    assert matched([early, late], [late]) == [(early, None), (late, late)]
    assert matched([late], [early, late]) == [(late, late)]
    assert matched([early, Span("b", 2, 3), late], [late, early][::-1]) == [
        (early, early),
        (Span("b", 2, 3), None),
        (late, late),
    ]


@pytest.mark.parametrize("frames, events", [(50, 3), (73, 4)])
def test_rendered_events_are_found_near_their_time(frames, events):
    found = measure(load_extractor("world"), scenes(1, frames, events, seed=0))
    assert found.asked == events and len(found.start) >= 0.75 * events
    assert np.median(found.start) < 0.25 and np.median(found.end) < 0.25


def test_metrics_take_long_clips_with_many_events():
    world = load_extractor("world")
    spec = next(scenes(1, 73, 4, seed=0))
    clip = Viewing(render_frames(simulate([spec])[0])[0].numpy(), 8.0, prompt=timed_caption(spec))
    assert untold(clip, world) == "" and find("event_iou")(clip) > 0.6
    short = clip.but(frames=clip.frames[:25])
    assert untold(short, world) == "the judge tells 2 events in 3.125 s, and there are 4"
    assert find("event_iou")(short) is None and find("event_iou")(clip.but(prompt="0-2s: a ball spins")) is None
