"""What to ask for in each part of a video that is made in several."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kinema.core.chunks import Chunk, seed_of
from kinema.core.errors import KinemaError
from kinema.timeline import Event, Timeline
from kinema.timeline.events import CLOSE, too_short

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.request import Request


def happening(
    request: Request, frames: int, fps: float, frames_per_latent: int, first: int = 0
) -> Callable[[range, range], dict[str, Any]]:
    """For a video of `frames` frames: what a part of it asks for, given the frames it makes and those of them it adds.

    The events share the frames from `first` on, and their times count from there. A part asks for what happens in the
    latent frames that it adds, at its times in the part: the first of these begins with the part, and what goes on
    beyond the frames it adds goes on to its end. What reaches too little into a part for a latent frame there is left
    to the part beside it; a part in a gap asks for the event ahead of the gap, or else the one behind it.
    Raises: KinemaError for an event that ends behind the video, and, once a part asks, for one too short for a latent
    frame of any part.
    """
    timeline = request.events
    if timeline is None or (len(timeline) == 1 and not timeline.timed):
        return lambda made, added: {}
    timed = timeline.over((frames - first) / fps, fps)
    middles = _middles(frames - first, frames_per_latent, 1 if first == 0 else frames_per_latent, fps)

    def shown(event: Event, start: float, stop: float) -> bool:
        i = bisect_left(middles, max(event.span[0] - CLOSE, start))
        return i < len(middles) and middles[i] < min(event.span[1] - CLOSE, stop)

    def asks(made: range, added: range) -> dict[str, Any]:
        for event in timed:
            if not shown(event, *event.span):
                raise too_short(event, frames_per_latent / fps)
        start, stop = ((n - first) / fps for n in (added.start, added.stop))
        some = [e for e in timed if shown(e, start, stop)]
        some = some or [next((e for e in reversed(timed.events) if e.span[0] <= start), timed.events[0])]
        if len(some) == 1:
            return {"prompt": some[0].text, "timeline": None}
        part = Timeline(_placed(some, (made.start - first) / fps, (added.stop - first) / fps, len(made) / fps))
        return {"prompt": "", "timeline": str(part)}

    return asks


def _middles(frames: int, each: int, begins: int, fps: float) -> list[float]:
    """The middles of the latent frames that parts add, seconds. begins: frames of the first; each: of the others."""
    edges = [0, *range(begins, frames, each), frames]
    return [(a + b) / 2 / fps for a, b in pairwise(edges) if b > a]


def _placed(events: Sequence[Event], begin: float, stop: float, length: float) -> tuple[Event, ...]:
    """Events at their times in a part that lasts `length` from `begin` on, and shows nothing from `stop` on."""
    latest, placed = 0.0, list[Event]()
    for event in events:
        start = max(event.span[0] - begin, 0.0) if placed else 0.0
        end = length if event.span[1] > stop - CLOSE else event.span[1] - begin
        placed.append(replace(event, start=start, end=end, meanwhile=event.meanwhile and start < latest))
        latest = max(latest, end)
    return tuple(placed)


def one_an_event(backbone: Backbone, request: Request, name: str, overlap: int = 0) -> list[Chunk]:
    """A chunk an event, as long as the event and `overlap` frames more behind the first; without events one for all.

    Each is made in whole latent frames, and what is too much is not shown. Without num_frames an event has the length
    that the model was trained on.
    Raises: KinemaError, naming the technique `name`, for gaps and overlaps.
    """
    timeline, step = request.events, backbone.frames_step
    if timeline is None or len(timeline) == 1:
        return [Chunk(request=request)]
    size = backbone.defaults.num_frames
    frames = request.num_frames or size + (len(timeline) - 1) * (size - overlap)
    table = timeline.frames(frames, request.fps or backbone.defaults.fps)
    if not (table.sum(dim=0) == 1).all():
        raise KinemaError(
            f"{name} makes a clip an event; let the events follow each other, from the first frame to the last"
        )
    chunks = []
    for i, (event, shown) in enumerate(zip(timeline, table.sum(dim=1).tolist(), strict=True)):
        repeats = overlap if i else 0
        made = -(-(shown + repeats - 1) // step) * step + 1
        asked: dict[str, Any] = dict(prompt=event.text, timeline=None, num_frames=made, seconds=None)
        if i:
            asked |= dict(seed=seed_of(request.seed, i), image=None, last_image=None, video=None, keep=None)
        chunks.append(Chunk(request=request.changed(**asked), overlap=repeats, shown=shown))
    return chunks
