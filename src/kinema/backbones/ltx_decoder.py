"""The end of an LTX-Video run: its decoder, which from 0.9.1 on takes the last denoising step itself.

HaCohen et al., "LTX-Video: Realtime Video Latent Diffusion", 2024, arXiv:2501.00103, section 2.1.3. Such a decoder is
given latents with a little noise and told how much; some of its layers add noise of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import decoding

# What the authors' own configurations of 0.9.1 to 0.9.8 name (configs/ltxv-*.yaml of LTX-Video).
TIME = 0.05  # told to the decoder: level of noise, 0..1
NOISE = 0.025  # level of noise given to it, 0..1

_layer_noise: ContextVar[torch.Generator | None] = ContextVar("ltx_layer_noise", default=None)


def listen(vae: Any) -> None:
    """Lets the layers of the decoder that add noise draw it from the sample's generator, not from a global one."""
    if not any(vae.config.decoder_inject_noise):
        return

    def with_generator(block: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        generator = _layer_noise.get()
        return None if generator is None else (args, {**named, "generator": generator})

    for block in (vae.decoder.mid_block, *vae.decoder.up_blocks):
        block.register_forward_pre_hook(with_generator, with_kwargs=True)


def pieces(vae: Any, z: Tensor, generators: Sequence[torch.Generator] | None) -> Iterator[Tensor]:
    """Latents (B, C, T, H, W) in the autoencoder's units -> video (B, 3, n, H', W') in -1..1, piece after piece.

    generators: of each sample, from which its noise is drawn; None adds none to the latents.
    """
    each = torch.split(z.to(vae.dtype), 1)
    given = [None] * len(each) if generators is None else generators
    return decoding.together(_one(vae, one, generator) for one, generator in zip(each, given, strict=True))


def _one(vae: Any, z: Tensor, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Of one sample."""
    if not vae.config.timestep_conditioning:
        yield from decoding.pieces(vae, z)
        return
    time, inner = torch.zeros(1, dtype=z.dtype, device=z.device), None
    if generator is not None:
        time = time + TIME
        noise = torch.randn(z.shape, generator=generator, device=generator.device, dtype=z.dtype).to(z.device)
        share = torch.tensor(NOISE, dtype=z.dtype, device=z.device)
        z = (1 - share) * z + share * noise
        inner = _on(z.device, generator)
    found = decoding.pieces(vae, z, temb=time)
    while True:
        token = _layer_noise.set(inner)  # never while the caller has its turn
        try:
            piece = next(found, None)
        finally:
            _layer_noise.reset(token)
        if piece is None:
            return
        yield piece


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The generator itself, or one on `device` that starts from a number drawn from it."""
    if device.type == generator.device.type:
        return generator
    start = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(device).manual_seed(start)
