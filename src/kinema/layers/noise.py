"""Starting noise whose frames come back along a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.run import Run


def rescheduled(x: Tensor, size: int, stride: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Noise x (B, C, T, H, W) whose frames from `size` on are those one window earlier, every `stride` in new order.

    Then any `size` frames that begin at a multiple of `stride`, and the last `size`, are the same frames of noise.
    Every sample is reordered from its own generator. "FreeNoise", 2023, arXiv:2310.15169, section 3.2.
    """
    x, frames = x.clone(), x.shape[2]
    for sample, generator in zip(x, generators, strict=True):
        for start in range(size, frames, stride):
            count = min(stride, frames - start)
            order = torch.randperm(count, generator=generator, device=generator.device)
            sample[:, start : start + count] = sample[:, start - size + order.to(x.device)]
    return x


def check_kept(run: Run, name: str) -> None:
    """Raises: KinemaError when the solver of a run replaces its starting noise, for the technique `name`."""
    if run.solver.draws_noise:
        kind = type(run.conditions.scheduler).__name__
        raise KinemaError(
            f"{name} orders the noise a clip begins with, and {kind} adds fresh noise in each step; ask for another "
            "scheduler, or turn reschedule off"
        )
