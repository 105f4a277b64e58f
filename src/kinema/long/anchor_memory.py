"""Later parts of a long clip keep the first one in sight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.run import Run
    from kinema.core.technique import Step


@technique(
    "anchor_memory",
    paper="arXiv:2403.14773",
    base="ModelScope T2V with a trained memory",
    neutral=dict(frames=0),
)
@dataclass(frozen=True, kw_only=True)
class AnchorMemory(Technique):
    """The clip's first latent frames stand beside every window that does not hold them.

    Paper: "StreamingT2V: Consistent, Dynamic, and Extendable Long Video Generation from Text", 2024, arXiv:2403.14773,
    section 4.2, whose memory of a frame of the first chunk keeps the look of a long video. Departures: the paper trains
    an encoder (APM) that tells the cross-attention of that frame; without training, its latents at the noise level of
    the step go through the network beside the window's and are read by all attention, `distance` latent frames before
    its first, so that they are a memory and no neighbour. Frames that are given are clean, and told so to a model with
    a noise level for each frame.
    Shapes: `frames` latent frames (B, C, frames, H, W) beside a window.
    Raises: KinemaError at start, without a technique that shows the model windows, and for more frames than a clip has.
    """

    frames: int = 1  # latent frames that are remembered, 0 or more; 0 is none
    distance: float = 8.0  # latent frames from them to the window's first, more than 0

    def start(self, run: Run) -> None:
        batch, channels, clip, rows, columns = run.conditions.shape
        if not 0 <= self.frames <= clip:
            raise KinemaError(f"frames of {self.name} is {self.frames}; use 0 to {clip}")
        if self.distance <= 0:
            raise KinemaError(f"distance of {self.name} is {self.distance}; use more than 0")
        if self.frames and not any(t.windowed for t in run.techniques):
            raise KinemaError(f"{self.name} remembers the start of a clip that is made in windows; add one of those")
        # What is checked before the first step; the clip itself comes with each step.
        run.state[self] = torch.zeros(batch, channels, self.frames, rows, columns, device=run.backbone.device)

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        step.run.state[self] = x[:, :, : self.frames]
        return x

    def tokens(self, step: Step) -> Tokens | None:
        assert step.run is not None
        if not self.frames or (step.branch and (step.window is None or step.window.first < self.frames)):
            return None
        known, given = step.run.conditions.known_frames, False
        if known is not None and step.run.backbone.time_per_frame:
            given = bool(known[:, :, : self.frames].all())
        places = torch.zeros(self.frames, 3)
        places[:, 0] = torch.arange(self.frames) - self.distance - self.frames + 1
        return Tokens(x=step.run.state[self], t=0.0 if given else None, places=places)
