"""From the end of one clip to the beginning of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.keep import in_frames
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.clips import encoded, open_clip

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kinema.core.run import Run
    from kinema.core.technique import Step


@technique("seine", paper="arXiv:2310.20700", base="LaVie", neutral=dict(frames=0))
@dataclass(frozen=True, kw_only=True)
class SEINE(Technique):
    """The last frames of the clip `first` begin the video, and the first frames of `second` end it.

    A model with a noise level for each latent frame is told that these are clean (level 0). To any other, latents of
    these frames are put in place before every step, x = (1 - t) z + t noise, with one noise for all steps.
    Paper: "SEINE: Short-to-Long Video Diffusion Model for Generative Transition and Prediction", 2023,
    arXiv:2310.20700; its transition, from the last frame of one shot to the first of another. Departures: no channels
    of a mask and no training, which is what makes the paper's model follow the given frames; what a model here makes
    between them depends on the clean frames it has learned. `continuation` is the paper's prediction. A causal
    autoencoder's latent frame stands for several frames: `frames` are taken up to whole ones at the end, and
    down to 1 plus whole ones at the beginning.
    Shapes: z and noise are (B, C, T, H, W).
    Raises: KinemaError at start, for no clips or ones that are not there or too short, nothing left to be made, other
    given frames, and a video of several chunks.
    """

    files = ("first", "second")

    first: str = ""  # a video or a folder of pictures; "" leaves the beginning open
    second: str = ""  # the same for the end
    frames: int = 1  # of each clip that are given; 0 gives none

    def start(self, run: Run) -> None:
        conditions, k = run.conditions, run.backbone.frames_per_latent
        run.state[self] = None
        if self.frames < 0:
            raise KinemaError(f"frames of {self.name} is {self.frames}; use 0 or more")
        if self.frames == 0:
            return
        if not self.first and not self.second:
            raise KinemaError(f"{self.name} has no clips; give first, second or both, as in {self.name}:first=a.mp4")
        if run.chunk.count > 1 or run.chunk.given:
            planner = next(t.name for t in run.techniques if t.overrides("chunks"))
            raise KinemaError(
                f"{self.name} gives the ends of a video made in one pass, and {planner} makes this one in several; "
                "they cannot be used together"
            )
        if conditions.known is not None:
            raise KinemaError(f"{self.name} gives the video its first and last frames; leave image and video out")
        if run.backbone.time_per_frame and self.noise_range != (1.0, 0.0):
            raise KinemaError(
                f"model {run.backbone.name!r} is told of the ends of {self.name} in all steps; leave noise_range out"
            )
        known = torch.zeros(conditions.shape, device=run.backbone.device)
        there = torch.zeros(conditions.shape[2], dtype=torch.bool, device=run.backbone.device)
        if self.first:
            clip = self._opened("first")
            count = 1 + (self.frames - 1) // k * k
            ahead = known.shape[2] - (conditions.num_frames - 1) // k - 1  # of the clip, in some models
            self._place(run, known, there, clip[-count:], slice(ahead, ahead + (count - 1) // k + 1))
        if self.second:
            clip = self._opened("second")
            count = -(-self.frames // k)  # latent frames, behind one picture that is thrown away
            shown = clip[[0] * (k > 1) + [min(i, len(clip) - 1) for i in range(count * k)]]
            self._place(run, known, there, shown, slice(-count, None))
        if there.all():
            raise KinemaError(f"{self.name} gives all frames of the video; ask for a longer one, or give fewer")
        places = there[None, None, :, None, None]
        if run.backbone.time_per_frame:
            conditions.known, conditions.known_frames = known, places
        else:
            run.state[self] = known, places, run.noise()

    def _opened(self, field: str) -> np.ndarray:
        """The clip that a field names. Raises: KinemaError for one of less than `frames` frames."""
        clip = open_clip(getattr(self, field), f"{field} of {self.name}")
        if len(clip) < self.frames:
            raise KinemaError(
                f"{field} of {self.name} has {in_frames(len(clip))}, and frames of {self.name} is {self.frames}; use a "
                "longer clip, or less"
            )
        return clip

    def _place(self, run: Run, known: Tensor, there: Tensor, clip: np.ndarray, where: slice) -> None:
        """Enters frames (n, H, W, 3) as latents, the last ones of which belong to the places `where`."""
        latents = encoded(run, clip)
        count = len(range(*where.indices(known.shape[2])))
        known[:, :, where] = latents[:, :, -count:]
        there[where] = True

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        return x if step.run.state[self] is None else self._put(step.run, x, step.t)

    def finish(self, run: Run, x: Tensor) -> Tensor:
        return x if run.state[self] is None else self._put(run, x, 0.0)

    def _put(self, run: Run, x: Tensor, t: float) -> Tensor:
        known, places, noise = run.state[self]
        return torch.where(places, run.path.add_noise(known, noise, t).to(x), x)
