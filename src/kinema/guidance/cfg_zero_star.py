"""Guidance that keeps only the part of the unconditional velocity that agrees with the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.run import Run


@technique(
    "cfg_zero_star",
    paper="arXiv:2503.18886",
    base="Lumina-Next, Stable Diffusion 3, Flux, Wan 2.1",
    neutral=dict(scale=1.0, zero_steps=0),
)
@dataclass(frozen=True, kw_only=True)
class CFGZeroStar(Technique):
    """v = a u + scale * (c - a u), with a = <c, u> / <u, u> of each sample; v = 0 in the first steps.

    Paper: "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models", 2025, arXiv:2503.18886.
    Departures: none known; the sums run over channels, frames and pixels of a sample. The authors' code now rests in 4%
    of the steps, which is `zero_steps` = 2 of 50; here, as in diffusers' guider, it is one step.
    Shapes: cond (c), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for a negative scale, or when no step would be left.
    """

    branches = ("cond", "uncond")
    scale: float = 5.0  # guidance weight, no unit; 0 or more, 1 returns c
    zero_steps: int = 1  # first steps of the run in which nothing moves, and the model is not called; in noise_range

    def start(self, run: Run) -> None:
        if self.scale < 0:
            raise KinemaError(f"scale of cfg_zero_star is {self.scale}; use 0 or more, 1 for no guidance")
        if not 0 <= self.zero_steps < run.steps:
            raise KinemaError(f"zero_steps of cfg_zero_star is {self.zero_steps}; use 0 to {run.steps - 1}")

    def needs(self, step: Step) -> Sequence[str]:
        return () if step.index < self.zero_steps else super().needs(step)

    def guide(self, step: Step, cond: Tensor, uncond: Tensor) -> Tensor:  # type: ignore[override]
        kept = agreement(cond, uncond) * uncond
        return kept + self.scale * (cond - kept)


def agreement(cond: Tensor, uncond: Tensor) -> Tensor:
    """a = <c, u> / (<u, u> + 1e-8), the least-squares factor of each sample (B, 1, 1, 1, 1), for (B, C, T, H, W)."""
    dims = tuple(range(1, cond.ndim))
    return (cond * uncond).sum(dims, keepdim=True) / (uncond.square().sum(dims, keepdim=True) + 1e-8)
