"""A longer video, chunk after chunk: each replays the last one's way from noise, mirrored, then lets go of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kinema.core.chunks import Chunk, split
from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.chunk_prompts import happening

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.backbones.protocol import Backbone
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.request import Request


@technique(
    "vidrd",
    paper="arXiv:2309.03549",
    base="Stable Diffusion 2.1 with temporal layers",
    neutral=dict(frames=100_001),
)
@dataclass(frozen=True, kw_only=True)
class VidRD(Technique):
    """Frame f of a chunk starts from the noise n of frame T - 1 - f of the last one, and follows its latents.

    Noise (prior noise reversion, past-dependent noise): n_f for the first `tied` frames, and for the others
    r / sqrt(1 + r^2) n + 1 / sqrt(1 + r^2) new noise, r = `reuse`. Latents (staged guidance): those of frame f < `tied`
    are the last chunk's in the steps i < (tied - f) N / tied * `guided`, of N.
    Paper: "Reuse and Diffuse: Iterative Denoising for Text-to-Video Generation", 2023, arXiv:2309.03549, sections 3.2
    and 3.3. Departures: the base model and its decoder with temporal layers are trained there, here they are any; the
    paper ties 4 of 16 frames, which is a quarter of the latent frames here. A causal autoencoder's first latent frame
    is one picture: it starts from new noise, the mirror stands behind it, and since the first latent frame in the
    mirror holds the frames that the video ends with, these are not shown twice. Time is mirrored, and with it motion.
    Shapes: latents and noise (B, C, T, H, W); carried are N of them.
    Raises: KinemaError before the first chunk, for values out of range, and for schedulers that draw noise.
    """

    frames: int | None = None  # of a chunk; None is the length that the model was trained on
    tied: int | None = None  # latent frames that follow the last chunk, 1 or more; None is a quarter
    reuse: float = 4.0  # weight of old noise against new, no unit; 0 or more
    guided: float = 0.4  # share of the steps in which the first frame follows, 0..1

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        if self.reuse < 0 or not 0 <= self.guided <= 1 or (self.tied is not None and self.tied < 1):
            raise KinemaError(f"{self.name} needs reuse of 0 or more, guided of 0 to 1 and tied of 1 or more")
        size = backbone.defaults.num_frames if self.frames is None else self.frames
        frames = request.num_frames or size
        repeated = 0 if backbone.frames_per_latent == 1 else 1 + backbone.frames_per_latent
        asks = happening(request, frames, request.fps or backbone.defaults.fps, backbone.frames_per_latent)
        return split(request, frames, size, repeated if frames > size else 0, asks=asks)

    def start(self, run: Run) -> None:
        if run.chunk.count > 1 and run.solver.draws_noise:
            kind = type(run.conditions.scheduler).__name__
            raise KinemaError(
                f"{self.name} replays a way from noise, and {kind} draws new noise in its steps; ask for another"
            )
        ahead = run.conditions.shape[2] - (run.conditions.num_frames - 1) // run.backbone.frames_per_latent - 1
        first = ahead + (run.backbone.frames_per_latent > 1)
        count = run.conditions.shape[2] - first
        tied = max(count // 4, 1) if self.tied is None else self.tied
        if tied > count > 0:
            raise KinemaError(f"tied of {self.name} is {tied} latent frames; use 1 to {count}")
        run.state[self] = {"first": first, "tied": tied, "seen": {}}

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        state, handed = run.state[self], run.carried[self]
        if handed:
            first, share = state["first"], (1 + self.reuse**2) ** -0.5
            old = mirrored(handed["noise"].to(x), first)
            mixed = self.reuse * share * old + share * x
            mixed[:, :, :first] = x[:, :, :first]
            replayed = slice(first, first + state["tied"])
            mixed[:, :, replayed] = old[:, :, replayed]
            x = mixed
        state["noise"] = x
        return x

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        state, handed = step.run.state[self], step.run.carried[self]
        if f"step.{step.index}" in handed:
            old = mirrored(handed[f"step.{step.index}"].to(x), state["first"])
            x, tied = x.clone(), state["tied"]
            for f in range(tied):
                if step.index < (tied - f) * step.count / tied * self.guided:
                    x[:, :, state["first"] + f] = old[:, :, state["first"] + f]
        state["seen"][f"step.{step.index}"] = x
        return x

    def carry(self, run: Run, x: Tensor) -> Mapping[str, Tensor]:
        state = run.state[self]
        return {"noise": state["noise"], **state["seen"]}


def mirrored(x: Tensor, first: int) -> Tensor:
    """Latents (B, C, T, H, W) with their frames from `first` on in the opposite order."""
    return torch.cat([x[:, :, :first], x[:, :, first:].flip(2)], dim=2)
