"""What AnimateDiff and Stable Video Diffusion share: a UNet that predicts noise or v, its time counted in steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kinema.backbones.base import ALL_HOOKS, DiffusersBackbone
from kinema.backbones.codec import Codec
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions
from kinema.backbones.unet_attention import UNetTapped, attentions, passages
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.path import VariancePreserving, per_sample
from kinema.core.schedule import Clock, NoiseSolver, Solver, on_sigmas


class UNetBackbone(DiffusersBackbone):
    """A video UNet in kinema's convention: x is in the units of the scaled latents.

    A latent frame of the family's own autoencoders is a frame.

    Where a frame stands is added to its tokens: by AnimateDiff from a table, so that frames can be moved at temporal
    sites, by Stable Video Diffusion through layers behind which it cannot be taken off again. All frames of a clip
    have one noise level.
    """

    tapped_processor = UNetTapped
    solver_kind = NoiseSolver
    hooks = ALL_HOOKS - {"positions", "tokens", "skip"}

    def __init__(self, *, unet: Any, scheduler: Any, vae: Any, folder: Folder, **parts: Any) -> None:
        self.unet = unet
        self.path = VariancePreserving(scheduler.config.prediction_type)
        self.clock = Clock(scheduler.alphas_cumprod)
        if self.path.prediction == "epsilon" and self.clock.levels[-1] == 1:
            raise KinemaError(
                f"scheduler of model {folder.name!r} begins with noise alone, from which no clean sample follows for "
                "a model that predicts the noise; turn rescale_betas_zero_snr off, or take v_prediction"
            )
        self.codec = Codec.of(vae)
        self.channels = int(unet.config.out_channels)
        self.frames_per_latent, self.pixels_per_cell = self.codec.frames_per_latent, self.codec.pixels_per_cell
        super().__init__(scheduler=scheduler, vae=vae, folder=folder, **parts)

    def attentions(self) -> Iterator[tuple[Site, Any]]:
        return attentions(self.unet)

    def passages(self) -> Iterator[tuple[int, Any]]:
        return passages(self.unet)

    def solver(self, conditions: Conditions) -> Solver:
        """Also notes which timestep belongs to each level of the run: schedulers round it in ways of their own."""
        solver = super().solver(conditions)
        conditions.extra["timesteps"] = dict(zip(solver.levels, solver.timesteps.tolist(), strict=False))
        return solver

    def network_time(self, t: float | Tensor, x: Tensor, conditions: Conditions) -> Tensor:
        """The timestep of each sample, (B,) float32. Raises: KinemaError for levels by frame."""
        self.one_level(t)
        levels = t.reshape(-1).tolist() if isinstance(t, Tensor) else [t]
        known = conditions.extra.get("timesteps", {})
        times = [known[level] if level in known else self.time_of(level) for level in levels]
        return torch.tensor(times, dtype=torch.float32, device=x.device).expand(x.shape[0])

    def time_of(self, t: float) -> float:
        """The timestep of a level that is none of the run's own."""
        return self.clock.at(t)

    def network_input(self, x: Tensor, t: float | Tensor, conditions: Conditions) -> Tensor:
        """What diffusers' scheduler hands to the network at x, to the bit, float32."""
        if not on_sigmas(conditions.scheduler):
            return self.path.outwards(x, t).float()
        t = per_sample(t, x)
        # Euler: (x0 + sigma noise) / sqrt(sigma^2 + 1), each step of it rounded to float32.
        sigma = torch.as_tensor(t / (1 - t)).float()
        z: Tensor = (x / (1 - t)).float() / (sigma**2 + 1) ** 0.5
        return z

    def network_velocity(self, output: Tensor, x: Tensor, t: float | Tensor) -> Tensor:
        return self.path.velocity(output.to(x.dtype), x, t)
