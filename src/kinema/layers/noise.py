"""Starting noise whose frames come back along a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from kinema.core.errors import KinemaError
from kinema.core.technique import Technique
from kinema.core.windows import window_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.attention import Site
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


@dataclass(frozen=True, kw_only=True)
class Rescheduled(Technique):
    """Base of the methods that look at a long clip in windows over time and begin with noise that comes back."""

    alike: ClassVar[bool] = True

    window: int | None = None  # latent frames; None is the length the model was trained on
    stride: int | None = None  # latent frames from one window to the next, 1..window; None is a quarter of it
    reschedule: bool = True  # noise of one window for the whole clip; off leaves all frames their own

    def sizes(self, run: Run) -> tuple[int, int]:
        """Latent frames of a window, and from one to the next; called at `start`.

        Raises: KinemaError for windows that leave frames out, a solver that replaces its starting noise, and ahead of
        segments that need all of their tokens.
        """
        size, stride = window_sizes(run, self, self.window, self.stride, fraction=0.25)
        if self.reschedule and size < run.conditions.shape[2] and run.solver.draws_noise:
            kind = type(run.conditions.scheduler).__name__
            raise KinemaError(
                f"{self.name} orders the noise a clip begins with, and {kind} adds fresh noise in each step; ask for "
                "another scheduler, or turn reschedule off"
            )
        self._refuse_behind(run, size)
        return size, stride

    def _refuse_behind(self, run: Run, size: int) -> None:
        """Segments that read each other's tokens must see all of them, ahead of whoever passes those of windows."""
        own = next(i for i, t in enumerate(run.techniques) if t is self)
        for other in run.techniques[own + 1 :]:
            if other.windowed and other.overrides("attend"):
                segment = window_sizes(run, other, getattr(other, "window", None), None, fraction=1.0)[0]
                if size < segment < run.conditions.shape[2]:
                    raise KinemaError(
                        f"{self.name} passes windows of {size} latent frames of the segments of {segment} that read "
                        f"each other's tokens in {other.name}; put {other.name} ahead of it"
                    )

    def wants(self, site: Site) -> bool:
        return site.kind in ("temporal", "self", "joint")

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        state = run.state[self]
        return rescheduled(x, state.size, state.stride, run.generators) if self.reschedule else x
