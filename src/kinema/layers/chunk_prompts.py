"""What to ask for in each part of a video that is made in several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kinema.timeline import Event, Timeline


def prompts(prompt: str, frames: int, fps: float, first: int = 0) -> Callable[[range], str]:
    """For a video of `frames` frames: the words, without times, of what happens in these frames of it.

    The events share the frames from `first` on, and their times count from there. One that has half a frame or less in
    a part is left to the part beside it; in a gap it is the event ahead of the gap, or else the one behind it.
    Raises: KinemaError for a prompt that cannot be read, or lasts longer than the video.
    """
    if not prompt:
        return lambda part: prompt
    timeline = Timeline.parse(prompt)
    timed = timeline.over((frames - first) / fps, fps)

    def happening(part: range) -> str:
        start, stop = ((n - first) / fps for n in (part.start, part.stop))
        some = [e for e in timed if min(stop, e.span[1]) - max(start, e.span[0]) > 0.5 / fps]
        if len(some) == len(timed) and not timeline.timed:
            return prompt
        return str(Timeline(_untimed(some or [_nearest(timed, start)])))

    return happening


def _nearest(timed: Timeline, start: float) -> Event:
    ahead = [event for event in timed if event.span[0] <= start]
    return ahead[-1] if ahead else timed.events[0]


def _untimed(events: list[Event]) -> tuple[Event, ...]:
    bare = [replace(event, start=None, end=None) for event in events]
    return (replace(bare[0], meanwhile=False), *bare[1:])
