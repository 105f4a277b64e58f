"""Guidance without the part that only makes the prediction larger, which burns out colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.run import Run


@technique(
    "apg",
    paper="arXiv:2410.02416",
    base="EDM2, DiT-XL/2, Stable Diffusion 2.1 and XL",
    neutral=dict(scale=1.0),
)
@dataclass(frozen=True, kw_only=True)
class APG(Technique):
    """v = c + (scale - 1) * (d_orthogonal + eta * d_parallel), with d = c - u split along c.

    d carries a momentum over the steps, and may be shortened to a largest norm.
    Paper: "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models", 2024,
    arXiv:2410.02416, algorithm 1. Departures: the paper splits predictions of the clean sample; here, as in
    diffusers' guider, it is the model's own prediction, the velocity. The norm's limit is off, because the paper's
    values (2.5 to 20) belong to the sizes of its latents.
    Shapes: cond (c), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for values out of range.
    """

    branches = ("cond", "uncond")
    scale: float = 7.5  # guidance weight, no unit; 0 or more, 1 returns c
    eta: float = 0.0  # share of the parallel part that is kept, 0..1; 1 is plain guidance
    momentum: float = -0.5  # weight of the earlier differences, -1..1; negative ones push apart, 0 is none
    norm_threshold: float = 0.0  # largest norm of d, latent units per unit of t; 0 is no limit

    def start(self, run: Run) -> None:
        if self.scale < 0 or self.norm_threshold < 0:
            raise KinemaError(f"scale {self.scale} and norm_threshold {self.norm_threshold} of apg must be 0 or more")
        if not 0 <= self.eta <= 1 or not -1 < self.momentum < 1:
            raise KinemaError(
                f"eta of apg is {self.eta} and momentum {self.momentum}; use 0 to 1, and more than -1 and less than 1"
            )
        run.state[self] = {}

    def guide(self, step: Step, cond: Tensor, uncond: Tensor) -> Tensor:  # type: ignore[override]
        difference = cond - uncond
        if step.run is not None:
            state = step.run.state[self]
            difference = difference + self.momentum * state.get("average", torch.zeros_like(difference))
            state["average"] = difference
        return cond + (self.scale - 1) * project(difference, cond, self.eta, self.norm_threshold)


def project(difference: Tensor, along: Tensor, eta: float, norm_threshold: float = 0.0) -> Tensor:
    """The part of `difference` orthogonal to `along` plus eta times the parallel one, sample by sample.

    Before that it is shortened to at most `norm_threshold`, where that is above 0. All are (B, C, T, H, W).
    """
    dims = tuple(range(1, along.ndim))
    if norm_threshold > 0:
        norm = difference.square().sum(dims, keepdim=True).sqrt()
        difference = difference * (norm_threshold / norm.clamp_min(norm_threshold))
    unit = along / along.square().sum(dims, keepdim=True).sqrt().clamp_min(1e-12)
    parallel = (difference * unit).sum(dims, keepdim=True) * unit
    return difference - parallel + eta * parallel
