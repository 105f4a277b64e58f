"""What a video autoencoder is to a diffusion model: how far it compresses, and the scale of its latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codec:
    """x = (z - mean) / deviation, for latents z of the autoencoder and x of the diffusion model."""

    channels: int
    frames_per_latent: int  # frames of a latent frame, but for the first
    pixels_per_cell: int
    mean: Tensor  # (1, C, 1, 1, 1) float32, here and below
    deviation: Tensor

    @classmethod
    def of(cls, vae: Any) -> Codec:
        """Of an autoencoder that diffusers or kinema knows."""
        config = vae.config
        channels = int(getattr(config, "latent_channels", None) or config.z_dim)
        mean, deviation = torch.zeros(channels), torch.ones(channels)
        if getattr(config, "latents_mean", None) is not None:
            mean, deviation = torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
        elif "latents_mean" in vae._buffers:  # LTX's
            mean, deviation = vae.latents_mean, vae.latents_std
        if getattr(config, "scaling_factor", None) is not None:
            deviation = deviation * (1 / config.scaling_factor)
        frames, pixels = _compression(vae, "temporal"), _compression(vae, "spatial")
        column = (1, channels, 1, 1, 1)
        return cls(channels, frames, pixels, mean.float().view(column), deviation.float().view(column))

    def latents(self, x: Tensor) -> Tensor:
        """z of x (B, C, T, H, W), in the type of x."""
        return x * self.deviation.to(x) + self.mean.to(x)

    def scaled(self, z: Tensor) -> Tensor:
        """x of z (B, C, T, H, W), in the type of z."""
        return (z - self.mean.to(z)) / self.deviation.to(z)


def _compression(vae: Any, kind: str) -> int:
    """How far it compresses, "temporal" or "spatial", under one of the names that diffusers has for it."""
    config = vae.config
    told = getattr(config, f"scale_factor_{kind}", None) or getattr(config, f"{kind}_compression_ratio", None)
    if told is None and f"{kind}_compression_ratio" in vars(vae):
        told = getattr(vae, f"{kind}_compression_ratio")
    if told is None:
        told = 1 if kind == "temporal" else 2 ** (len(config.block_out_channels) - 1)
    return int(told)
