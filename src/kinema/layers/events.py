"""What happens in which latent frame of a run's clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.blend import Blend
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.windows import Window


@dataclass(frozen=True, eq=False)
class Events:
    """The events of a run's timeline."""

    texts: tuple[str, ...]
    frames: Tensor  # (events, latent frames of the clip) bool; none in a gap, several where events overlap

    def of(self, window: Window, padding: int = 0) -> int | None:
        """The event that most of a window's counted frames belong to, the first of several; None for a window in a gap.

        padding: latent frames ahead of the clip's first.
        """
        counted = window.counted
        share = self.frames[:, max(counted.start - padding, 0) : max(counted.stop - padding, 1)].sum(dim=1)
        return int(share.argmax()) if share.any() else None


@dataclass(frozen=True, eq=False)
class Mixtures:
    """The mixtures of texts that latent frames read, each once."""

    texts: list[Blend]  # as `run.read_texts` takes them
    weights: Tensor  # (mixtures, events)
    frames: Tensor  # (mixtures, latent frames of the clip) bool; a frame without any weight reads none

    @classmethod
    def of(cls, texts: Sequence[str], weights: Tensor) -> Mixtures:
        """From how much of each event's text each latent frame reads, (T, events); a row sums to 1, or to 0."""
        rows, which = torch.unique(weights, dim=0, return_inverse=True)
        real = rows.any(dim=1).nonzero().flatten()
        blends = [
            Blend(*zip(*((text, w) for text, w in zip(texts, row, strict=True) if w > 0), strict=True))
            for row in rows[real].tolist()
        ]
        return cls(blends, rows[real], which == real[:, None])


def events_of(run: Run, name: str) -> Events:
    """What happens in a run, for the technique `name`. Raises: KinemaError when requests of a batch differ in it."""
    conditions, timeline = run.conditions, run.requests[0].events
    if any(r.events != timeline for r in run.requests):
        raise KinemaError(f"{name} lets frames read texts of their own, the same for a batch; give one prompt to all")
    if timeline is None:
        raise KinemaError(f"{name} lets frames read what happens in them, and there is no prompt; say what happens")
    table = timeline.frames(conditions.num_frames, conditions.fps, run.backbone.frames_per_latent)
    return Events(tuple(event.text for event in timeline), table.to(run.backbone.device))
