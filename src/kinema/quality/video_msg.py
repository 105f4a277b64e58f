"""A clip whose start is not noise but a rough sketch of what should be where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.clips import clip_latents

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.run import Run
    from kinema.core.technique import Step


@technique(
    "video_msg",
    paper="arXiv:2504.08641",
    base="VideoCrafter2, CogVideoX-5B",
    neutral=dict(level=1.0),
)
@dataclass(frozen=True, kw_only=True)
class VideoMSG(Technique):
    """x_s = (1 - s) z + s noise, with z the latents of the sketch and s = `level`; from there the prompt alone decides.

    Paper: "Training-free Guidance in Text-to-Video Generation via Multimodal Planning and Structured Noise
    Initialization", 2025, arXiv:2504.08641. Departures: the sketch is given (the paper has a language model plan boxes
    and pastes segmented pictures of the objects into a background video); its alpha of 0.7 for CogVideoX is step 699 of
    1000, level 0.8 with that model's noise schedule. The loop begins at noise as ever: above `level` the clean estimate
    is the sketch, without a call of the network, so that the first step below it starts where the paper's does, also
    with solvers that look back. Frames that are given keep what they are.
    Shapes: x, z and noise are (B, C, T, H, W).
    Raises: KinemaError at start, for a level outside 0..1, and for a sketch that is not there.
    """

    files = ("sketch",)
    conflicts = ("linear_leap",)  # it would take the steps of the sketch for a straight way

    sketch: str = ""  # a video or a folder of pictures; stretched to the size and length of the clip
    level: float = 0.8  # noise level from which on the model decides, 0..1; lower keeps more, 1 ignores the sketch

    def start(self, run: Run) -> None:
        if not 0 < self.level <= 1:
            raise KinemaError(f"level of {self.name} is {self.level}; use more than 0, at most 1")
        if run.conditions.companion is not None and self.level < 1:
            raise KinemaError(f"{self.name} leaves out the first steps, and the sound of the model needs them all")
        run.state[self] = clip_latents(run, self.sketch, f"sketch of {self.name}") if self.level < 1 else None

    def rest(self, step: Step) -> bool:
        return step.t > self.level

    def clean(self, step: Step, x0: Tensor) -> Tensor:
        assert step.run is not None
        if not self.rest(step):
            return x0
        sketch: Tensor = step.run.state[self].to(x0)
        return sketch.expand_as(x0)
