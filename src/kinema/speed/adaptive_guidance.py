"""Guidance that ends as soon as the model says nearly the same with and without the prompt."""

from __future__ import annotations

from collections.abc import Sequence
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
    "adaptive_guidance",
    paper="arXiv:2312.12487",
    base="LDM-512, EMU-768",
    neutral=dict(scale=1.0),
)
@dataclass(frozen=True, kw_only=True)
class AdaptiveGuidance(Technique):
    """v = u + scale * (c - u) until cos(c, u) > threshold; from then on v = c, without the second call.

    Paper: "Adaptive Guidance: Training-free Acceleration of Conditional Diffusion Models", 2023, arXiv:2312.12487.
    Departures: the paper compares predictions of the noise; those of a flow model are all equal at t = 1, so that here
    velocities are compared. The branch is left out once every sample of the batch is there.
    Shapes: cond (c), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for a negative scale or a threshold that is no cosine.
    """

    branches = ("cond", "uncond")
    scale: float = 5.0  # guidance weight, no unit; 0 or more, 1 returns c
    threshold: float = 0.991  # cosine of c and u from which on they count as the same, -1..1; 1 guides to the end

    def start(self, run: Run) -> None:
        if self.scale < 0:
            raise KinemaError(f"scale of adaptive_guidance is {self.scale}; use 0 or more, 1 for no guidance")
        if not -1 <= self.threshold <= 1:
            raise KinemaError(f"threshold of adaptive_guidance is {self.threshold}; use -1 to 1")
        run.state[self] = {"guided": True}

    def needs(self, step: Step) -> Sequence[str]:
        assert step.run is not None
        return ("cond", "uncond") if step.run.state[self]["guided"] else ("cond",)

    def guide(self, step: Step, cond: Tensor, uncond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if uncond is None:
            return cond
        if step.run is not None:
            step.run.state[self]["guided"] = bool((cosine(cond, uncond) <= self.threshold).any())
        return uncond + self.scale * (cond - uncond)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of each sample, (B,), for (B, C, T, H, W); at most 1."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).clamp(max=1)
