"""Encoding: a video as latents in the units of its autoencoder, the mode of the posterior and no sample of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinema.backbones.decoding import PICTURES

OF_PICTURES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")  # which encode every frame by itself


def modes(vae: Any, video: Tensor, apart: bool = False) -> Tensor:
    """Latents z (B, C, T, H, W) of video (B, 3, T', H', W') in -1..1. apart: one sample at a time."""
    if apart and len(video) > 1:
        return torch.cat([modes(vae, one) for one in torch.split(video, 1)])
    if type(vae).__name__ in OF_PICTURES:
        parts = torch.split(video.transpose(1, 2).flatten(0, 1), PICTURES)
        pictures = torch.cat([vae.encode(part).latent_dist.mode() for part in parts])
        return pictures.reshape(len(video), -1, *pictures.shape[1:]).transpose(1, 2)
    z: Tensor = vae.encode(video).latent_dist.mode()
    return z
