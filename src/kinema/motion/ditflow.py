"""The motion of a reference clip for another scene: latents are moved until attention flows as in the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.core.registry import technique
from kinema.motion.transfer import FIRST, MotionTransfer

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.attention import Site
    from kinema.core.technique import Step


@technique(
    "ditflow",
    paper="arXiv:2412.07776",
    base="CogVideoX-2B, CogVideoX-5B",
    neutral=dict(iterations=0, inject=False),
)
@dataclass(frozen=True, kw_only=True)
class DiTFlow(MotionTransfer):
    """x <- x - lr * Adam(d/dx |F(x) - F_ref|^2), five times before each of the first steps.

    F is the attention motion flow: for every pair of frames and every place, where the attention of the middle block
    finds the place again. F_ref are the best matches in the reference, seen clean and without words; F(x) the expected
    ones, softmax over one frame at a time of 2 q k / sqrt(D), averaged over heads. Only places that move in the
    reference count. In the guided steps the first block reads the reference's keys and values, noised like the clip.
    Paper: "Video Motion Transfer with Diffusion Transformers", 2024, arXiv:2412.07776, sections 3.2 and 3.3, and its
    authors' code for what they leave open (injection in every branch, one learning rate a step of the solver).
    Departures: the range is the first 20% of CogVideoX 5B's 50 steps as noise levels, so that another solver or shift
    has more or fewer steps in it. Latents are x = (1 - t) x0 + t noise, at most 1.4 times smaller than CogVideoX's at
    the same level, and a step of Adam is as much larger. The whole clip is looked at under the request's own prompt,
    without what other techniques do in the network, also where they show it in windows or let frames read other texts.
    No gradient checkpointing: the network up to the middle block is held in memory.
    Shapes: x is (B, C, T, H, W); the flow (B, T', T', S, 2), for T' frames of S tokens, in tokens.
    Raises: KinemaError at start, for values out of range, a reference that is not there, or a video of several chunks.
    """

    conflicts = ("ditflow_positions",)

    def wants(self, site: Site) -> bool:
        return site.block == FIRST and site.kind in ("self", "joint")

    def follow(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        hold = step.run.hold
        return hold(self.optimised(step, x, lambda u: self.error(step, hold(u))))
