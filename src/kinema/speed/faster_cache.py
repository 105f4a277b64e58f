"""Compute self-attention in every second step, and continue its output in the others."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Call


@technique(
    "faster_cache",
    paper="arXiv:2410.19355",
    base="Open-Sora, Open-Sora-Plan, Latte, CogVideoX, Vchitect 2.0",
    neutral=dict(every=1),
)
@dataclass(frozen=True, kw_only=True)
class FasterCache(Technique):
    """f = f1 + weight * (f1 - f2), with f1 and f2 the last two outputs of a self-attention.

    Paper: "FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality", 2024, arXiv:2410.19355,
    dynamic feature reuse; its other half is the technique cfg_cache. Departures: of diffusers' hooks, which do the
    work: outputs that were continued count among the last two. The weight is constant, as in the authors' code for
    CogVideoX, where the paper lets it grow. diffusers' window, timesteps below 681, is `noise_range`, in the levels
    of a flow model (about 0.79 for CogVideoX), whose first step is computed. Attention over text and video at once
    counts as self-attention, and so does all of LTX-Video and LTX-2, which does not say what it is; VACE's blocks of
    control are computed.
    Shapes: the outputs of the attentions, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks without such layers.
    """

    noise_range: tuple[float, float] = (0.681, 0.0)
    every: int = 2  # steps from one computed output to the next; 1 computes all
    weight: float = 0.3  # of the last change, no unit; 0 repeats the last output

    def start(self, run: Run) -> None:
        if self.every < 1:
            raise KinemaError(f"every of faster_cache is {self.every}; use 1 or more")
        if not 0 <= self.weight <= 1:
            raise KinemaError(f"weight of faster_cache is {self.weight}; use 0 to 1")

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import FasterCacheConfig

        logging.getLogger("diffusers.hooks.faster_cache").setLevel(logging.ERROR)  # it warns of itself at every call
        first: list[int] = []  # calls before this network's first one; one of two experts may be asked late

        def timestep() -> float:
            if not first:
                first.append(call.count)
            return 0 if call.count > first[0] else math.inf

        return FasterCacheConfig(  # type: ignore[no-untyped-call]
            spatial_attention_block_skip_range=self.every,
            spatial_attention_timestep_skip_range=(-1, 1),
            attention_weight_callback=lambda _: self.weight,
            is_guidance_distilled=True,  # the branches of the guidance are not its business here
            current_timestep_callback=timestep,
        )
