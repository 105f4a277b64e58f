"""Use the output of an attention for several steps, that of cross-attention for most."""

from __future__ import annotations

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
    "pab",
    paper="arXiv:2408.12588",
    base="Open-Sora, Open-Sora-Plan, Latte, CogVideoX",
    neutral=dict(self_every=1, cross_every=1),
)
@dataclass(frozen=True, kw_only=True)
class PAB(Technique):
    """The outputs of self-attention are computed in every second step, those of cross-attention in every sixth.

    Paper: "Real-Time Video Generation with Pyramid Attention Broadcast", 2024, arXiv:2408.12588: 2 and 6 are its PAB246
    without the 4, which is for temporal attention. Departures: of diffusers' hooks, which do the work; their window of
    timesteps 800 to 100 is `noise_range`, in the levels of a flow model (about 0.88 to 0.26 for CogVideoX), whose first
    step computes everything. Attention over text and video at once counts as self-attention, and so does all of
    LTX-Video and LTX-2, which does not say what it is.
    Shapes: the outputs of the attentions, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks without such layers.
    """

    noise_range: tuple[float, float] = (0.8, 0.1)
    self_every: int = 2  # steps from one computed output to the next; 1 computes all
    cross_every: int = 6  # the same for attention that reads the text

    def start(self, run: Run) -> None:
        if self.self_every < 1 or self.cross_every < 1:
            raise KinemaError(f"pab computes every {self.self_every} and every {self.cross_every} steps; use 1 or more")

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import PyramidAttentionBroadcastConfig

        always = (-math.inf, math.inf)
        return PyramidAttentionBroadcastConfig(  # type: ignore[no-untyped-call]
            spatial_attention_block_skip_range=self.self_every,
            cross_attention_block_skip_range=self.cross_every,
            spatial_attention_timestep_skip_range=always,
            cross_attention_timestep_skip_range=always,
            current_timestep_callback=lambda: 0,
        )
