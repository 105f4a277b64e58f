"""What happens when in a run: the events that its prompt or timeline names, by latent frame of the clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.run import Run


@dataclass(frozen=True, eq=False)
class Events:
    """Events in order, for a technique that lets frames read what happens in them.

    Shapes: frames (E, T) bool, T latent frames of the clip, without padding ahead of it.
    """

    texts: tuple[str, ...]  # what each shows, what all share included
    frames: Tensor  # which latent frames belong to which event; some to none where there is a gap
    spans: tuple[tuple[float, float], ...]  # start and end of each, seconds


def events(run: Run, name: str, least: int = 2) -> Events:
    """The events of a run, for the technique called `name`. Where the request gives no times they share the clip.

    Raises: KinemaError when there are fewer than `least`, when the requests of a batch differ in them, or when one is
    too short for a latent frame.
    """
    timeline = run.requests[0].events
    count = 0 if timeline is None else len(timeline)
    if timeline is None or count < least:
        raise KinemaError(
            f"{name} needs {least} events or more, and there are {count}; write 'a, then b', or a timeline"
        )
    if any(request.events != timeline for request in run.requests[1:]):
        raise KinemaError(f"{name} needs the same events in all requests of a batch, and these differ; make them equal")
    frames, fps = run.conditions.num_frames, run.conditions.fps
    timed = timeline.over(frames / fps, fps)
    table = timed.frames(frames, fps, run.backbone.frames_per_latent)
    return Events(tuple(e.text for e in timed), table.to(run.backbone.device), tuple(e.span for e in timed))
