"""Guidance by a picture that grows from the first frame to the last."""

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


@technique("frame_cfg", paper="arXiv:2311.15127", base="Stable Video Diffusion", neutral=dict(first=1.0, last=1.0))
@dataclass(frozen=True, kw_only=True)
class FrameCFG(Technique):
    """v = u + s_f * (c - u) with s_f growing linearly from the first frame to the last; u is without the picture.

    Paper: "Stable Video Diffusion: Scaling Latent Video Diffusion Models to Large Datasets", 2023, arXiv:2311.15127,
    section 4.3: the first frame, which the picture shows, needs little guidance, and much would burn it out.
    Departures: the weights count latent frames, which in the paper's model are frames; the defaults are those of
    diffusers' pipeline.
    Shapes: cond (c), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, when a weight is negative.
    """

    branches = {"cond": frozenset(), "uncond": frozenset({"image"})}  # noqa: RUF012
    first: float = 1.0  # weight of the picture in the first frame, no unit; 0 or more, 1 returns c
    last: float = 3.0  # the same in the last frame

    def start(self, run: Run) -> None:
        if self.first < 0 or self.last < 0:
            raise KinemaError(f"first {self.first} and last {self.last} of frame_cfg must be 0 or more")

    def guide(self, step: Step, cond: Tensor, uncond: Tensor) -> Tensor:  # type: ignore[override]
        scale = torch.linspace(self.first, self.last, cond.shape[2], dtype=cond.dtype, device=cond.device)
        return uncond + scale[:, None, None] * (cond - uncond)
