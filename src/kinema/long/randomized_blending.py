"""Windows over a long clip that meet at another frame in every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.windows import fuse, windows_of

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.core.windows import Window


@technique(
    "randomized_blending",
    paper="arXiv:2403.14773",
    base="ModelScope T2V with a trained memory, I2VGen-XL as enhancer",
    neutral=dict(window=10_000),
)
@dataclass(frozen=True, kw_only=True)
class RandomizedBlending(Technique):
    """v of a frame in the overlap of two windows is that of the left one before a cut, and of the right one from it on.

    The cut is drawn anew for each sample, step and pair of windows, so that no join stays where it is.
    Paper: "StreamingT2V: Consistent, Dynamic, and Extendable Long Video Generation from Text", 2024, arXiv:2403.14773,
    section 4.3. Departures: the paper blends so while an enhancer goes over a video that is there already, here a clip
    is made so from noise; its trained parts (CAM and APM) are left out. Velocities are blended in the place of latents,
    which share their noise and one solver, all branches of the guidance at the same cut. The last window is pinned to
    the end; with a causal autoencoder every window but the first sees one latent frame more, ahead of its own.
    Shapes: velocities (B, C, T, H, W) of the clip, windows of `window` latent frames.
    Raises: KinemaError at start, for windows that do not overlap, and for a model that makes sound along with the clip.
    """

    windowed = True

    window: int | None = None  # latent frames; None is the length the model was trained on
    overlap: int | None = None  # latent frames that two windows share, 1..window - 1; None is a third, as 8 of 24

    def start(self, run: Run) -> None:
        if self.window is None and self.overlap is None:
            found = windows_of(run, self, None, None, fraction=2 / 3)
        else:
            size = windows_of(run, self, self.window, None, fraction=1.0)[0].stop
            overlap = size // 3 if self.overlap is None else self.overlap
            if size < run.conditions.shape[2] and not 1 <= overlap < size:
                raise KinemaError(f"overlap of {self.name} is {overlap} latent frames; use 1 to {size - 1}")
            found = windows_of(run, self, size, max(size - overlap, 1), fraction=1.0)
        run.state[self] = found

    def sees(self, run: Run) -> int:
        parts: list[Window] = run.state[self]
        return max(w.stop - w.first for w in parts)

    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[..., Tensor]) -> Tensor:
        assert step.run is not None
        parts: list[Window] = step.run.state[self]
        if len(parts) == 1:
            return next(x)
        seeds = [generator.initial_seed() + step.index for generator in step.run.generators]
        each = [cut_weights(parts, torch.Generator().manual_seed(seed)) for seed in seeds]
        weights = [torch.stack(samples) for samples in zip(*each, strict=True)]
        return fuse(((w, next(w.of(x), w)) for w in parts), x.shape[2], weights)


def cut_weights(parts: Sequence[Window], generator: torch.Generator) -> list[Tensor]:
    """1 for the frames of each window that are its own after a random cut in every overlap, 0 for the others."""
    cuts = [0]
    for left, right in pairwise(parts):
        low, high = max(right.counted.start, cuts[-1]), left.stop
        cuts.append(int(torch.randint(low, high + 1, (), generator=generator)))
    cuts.append(parts[-1].stop)
    return [
        torch.tensor([float(first <= frame < stop) for frame in part.counted])
        for part, first, stop in zip(parts, cuts, cuts[1:], strict=False)
    ]
