"""Push the velocity away from what the model would do without the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique
from kinema.guidance.frame_cfg import FrameCFG
from kinema.guidance.modality_cfg import ModalityCFG

if TYPE_CHECKING:
    from kinema.backbones.protocol import Defaults
    from kinema.core.run import Run


@technique("cfg", paper="arXiv:2207.12598", base="class-conditional ImageNet models", neutral=dict(scale=1.0))
@dataclass(frozen=True, kw_only=True)
class CFG(Technique):
    """v = u + scale * (c - u), with c under the prompt and u under the negative prompt.

    Paper: "Classifier-Free Diffusion Guidance", 2022, arXiv:2207.12598. Departures: `scale` counts as in diffusers,
    so scale = 1 + w of the paper and 1 means no guidance; a model of two experts may have a second scale.
    Shapes: cond (c), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, when a scale is negative, or a second one is given to a model of one expert.
    """

    branches = ("cond", "uncond")
    scale: float = 5.0  # guidance weight, no unit; 0 or more, 1 returns c
    low_noise_scale: float | None = None  # weight below the model's expert boundary; None is `scale`

    def start(self, run: Run) -> None:
        for name, value in (("guidance_scale", self.scale), ("low_noise_scale", self.low_noise_scale)):
            if value is not None and value < 0:
                raise KinemaError(f"{name} is {value}; use 0 or more, 1 for no guidance")
        if self.low_noise_scale is not None and run.backbone.expert_boundary is None:
            raise KinemaError(f"low_noise_scale is for models of two experts, {run.backbone.name!r} has one expert")

    def guide(self, step: Step, cond: Tensor, uncond: Tensor) -> Tensor:  # type: ignore[override]
        return uncond + self.at(step) * (cond - uncond)

    def at(self, step: Step) -> float:
        boundary = step.run.backbone.expert_boundary if step.run else None
        if self.low_noise_scale is not None and boundary is not None and step.told < boundary:
            return self.low_noise_scale
        return self.scale


def weighted(base: Tensor, *differences: tuple[float, Tensor, Tensor]) -> Tensor:
    """base + sum of w * (a - b), for triples (w, a, b); all tensors are (B, C, T, H, W)."""
    for weight, a, b in differences:
        base = base + weight * (a - b)
    return base


def plain_guidance(defaults: Defaults, scale: float | None = None) -> list[Technique]:
    """What a request without a method of its own is guided by: `scale`, or the model's own weights where it is None.

    Where a model's weight grows from frame to frame, `scale` is the one of the last frame; where a model makes sound,
    the one of the video. Empty where the weight is 1: the same without the second call of the model; and for a model
    that is told its guidance, which then reads it from the request.
    """
    if defaults.embedded_guidance:
        return []
    low = defaults.low_noise_guidance_scale if scale is None else None
    scale = defaults.guidance_scale if scale is None else scale
    first = defaults.first_frame_guidance_scale
    if first is not None:
        return [] if scale == first == 1 else [FrameCFG(first=first, last=scale)]
    if defaults.sound_guidance_scale is not None:
        return [] if scale == 1 else [ModalityCFG(scale=scale, sound_scale=defaults.sound_guidance_scale)]
    return [] if scale == 1 and low in (None, 1) else [CFG(scale=scale, low_noise_scale=low)]
