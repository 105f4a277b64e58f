"""Decoding in pieces: frames are given out as soon as they are made, so that memory does not grow with the clip.

What comes out is what diffusers' own `decode` gives. Autoencoders with a cache of their own (Wan, CogVideoX) are called
as their `decode` calls them, piece by piece; HunyuanVideo's goes in overlapping tiles of frames there already, and so
here; one of pictures decodes groups of them; kinema's looks only a few latent frames back, which are decoded again
with every piece. Where a frame depends on most of the others (LTX, Mochi, HunyuanVideo 1.5, SVD) the clip is decoded
whole, unless the autoencoder is told to work in tiles: then it goes in overlapping tiles of frames, one fading into the
next, and differs a little from the whole. diffusers has caches or tiles in time for some of these too, which give other
results than its whole decode (0.42: Mochi's pads with zeros, LTX's repeats a frame at every seam), and are not used.

An autoencoder that works in tiles of the picture (diffusers' `enable_tiling`) goes through all frames of a tile before
the next; Wan's and CogVideoX's then give the clip as one piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

PICTURES = 16  # decoded at once, as diffusers does
LATENT_FRAMES = 16  # of a piece of kinema's autoencoder
# Tiles in time of kinema's own, in latent frames: length, from one to the next, how many fade into the next. What is
# left of the overlap stands at both ends for what is beyond them, or at the beginning where a decoder only looks back.
TILE, STRIDE, FADE = 12, 6, 2
BACK, BOTH = 4, 2  # latent frames at the beginning of a tile for a decoder that looks back only, and both ways


def pieces(vae: Any, z: Tensor, apart: bool = False, **told: Any) -> Iterator[Tensor]:
    """Video (B, 3, n, H', W') in -1..1, piece after piece, of latents z (B, C, T, H, W) in the autoencoder's units.

    apart: one sample at a time. told: more for its `decode`.
    """
    if len(z) > 1 and (apart or getattr(vae, "use_slicing", False)):
        yield from together(pieces(vae, one, **told) for one in torch.split(z, 1))
        return
    way: Callable[..., Iterator[Tensor]] = WAYS.get(type(vae).__name__, whole)
    yield from way(vae, z, **told)


def together(each: Iterable[Iterator[Tensor]]) -> Iterator[Tensor]:
    """The pieces of several samples as pieces of the batch."""
    for samples in zip(*each, strict=True):
        yield torch.cat(samples) if len(samples) > 1 else samples[0]


def without(count: int, each: Iterator[Tensor]) -> Iterator[Tensor]:
    """The pieces of a clip without its first `count` frames."""
    for piece in each:
        cut = min(count, piece.shape[2])
        count -= cut
        if cut < piece.shape[2]:
            yield piece[:, :, cut:]


def tile_in_time(vae: Any) -> bool:
    """Has an autoencoder that knows no tiles of the picture go in tiles of frames; says whether it is such a one."""
    if type(vae).__name__ != "AutoencoderKLTemporalDecoder":
        return False
    vae.use_tiling = True
    return True


def whole(vae: Any, z: Tensor, **told: Any) -> Iterator[Tensor]:
    """All in one piece."""
    yield vae.decode(z, **told, return_dict=False)[0]


def _wan(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Latent frame by latent frame, as in AutoencoderKLWan._decode."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    if _in_tiles(vae, z):
        yield from whole(vae, z)
        return
    cache: list[Any] = [None] * vae._cached_conv_counts["decoder"]
    for i, one in enumerate(torch.split(vae.post_quant_conv(z), 1, dim=2)):
        piece = vae.decoder(one, feat_cache=cache, feat_idx=[0], first_chunk=i == 0)
        if vae.config.patch_size is not None:
            piece = unpatchify(piece, patch_size=vae.config.patch_size)  # type: ignore[no-untyped-call]
        yield piece.clamp(-1.0, 1.0)


def _cogvideox(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Two latent frames by two, three at first where their number is odd, as in AutoencoderKLCogVideoX._decode."""
    if _in_tiles(vae, z):
        yield from whole(vae, z)
        return
    group, count = vae.num_latent_frames_batch_size, z.shape[2]
    first = count % group + group
    cache = None
    for part in (z[:, :, :first], *torch.split(z[:, :, first:], group, dim=2)):
        if part.shape[2]:
            part = part if vae.post_quant_conv is None else vae.post_quant_conv(part)
            piece, cache = vae.decoder(part, conv_cache=cache)
            yield piece


def _hunyuan(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """In tiles of frames, as in AutoencoderKLHunyuanVideo._temporal_tiled_decode."""
    scale = vae.temporal_compression_ratio
    size, stride = vae.tile_sample_min_num_frames // scale, vae.tile_sample_stride_num_frames // scale
    if not vae.use_framewise_decoding or z.shape[2] <= size:
        yield from whole(vae, z)
        return

    def decode(tile: Tensor) -> Tensor:
        made: Tensor
        if _in_tiles(vae, tile):
            made = vae.tiled_decode(tile, return_dict=False)[0]
        else:
            made = vae.decoder(vae.post_quant_conv(tile))
        return made

    yield from in_time(decode, z, size, stride, scale, fade=size - stride)


def _faded(vae: Any, z: Tensor, lead: int, **told: Any) -> Iterator[Tensor]:
    """Whole, or in tiles of frames where the autoencoder is told to work in tiles; lead: see `in_time`."""
    if not getattr(vae, "use_tiling", False):
        yield from whole(vae, z, **told)
        return
    scale = getattr(vae, "temporal_compression_ratio", 1)
    yield from in_time(lambda tile: next(whole(vae, tile, **told)), z, TILE, STRIDE, scale, FADE, lead)


def _svd(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """As `_faded`; the decoder takes pictures, and how many of them are a clip."""

    def decode(tile: Tensor) -> Tensor:
        pictures = tile.transpose(1, 2).flatten(0, 1)
        made: Tensor = vae.decode(pictures, num_frames=tile.shape[2], return_dict=False)[0]
        return made.reshape(len(tile), -1, *made.shape[1:]).transpose(1, 2)

    if not getattr(vae, "use_tiling", False):
        yield decode(z)
        return
    yield from in_time(decode, z, TILE, STRIDE, 1, FADE, BOTH)


def _pictures(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Groups of pictures."""
    for part in torch.split(z, PICTURES, dim=2):
        made = vae.decode(part.transpose(1, 2).flatten(0, 1), return_dict=False)[0]
        yield made.reshape(len(part), -1, *made.shape[1:]).transpose(1, 2)


def _kinema(vae: Any, z: Tensor) -> Iterator[Tensor]:
    """Pieces of LATENT_FRAMES, each with the latent frames before it that its own look back to.

    A block looks one frame back at its level, of which there are 1, 2 and 4 a latent frame.
    """
    fine, middle, coarse = vae.config.decoder_depths
    back = math.ceil(max(coarse, 1) + middle / 2 + fine / 4)
    scale = vae.config.scale_factor_temporal
    for begin in range(0, z.shape[2], LATENT_FRAMES):
        first = max(0, begin - back)
        piece = next(whole(vae, z[:, :, first : begin + LATENT_FRAMES]))
        yield piece[:, :, (begin - 1 - first) * scale + 1 :] if begin else piece


def in_time(
    decode: Callable[[Tensor], Tensor], z: Tensor, size: int, stride: int, scale: int, fade: int, lead: int = 0
) -> Iterator[Tensor]:
    """Tiles of `size` + 1 latent frames, one every `stride`; where two overlap the first fades into the second.

    decode: latents -> video whose first latent frame is one frame, and every other one `scale`. fade: latent frames in
    which both are seen. The first frame of a tile and `lead` latent frames more are not used again, because they were
    decoded as the beginning of a clip; nor is what is left of the overlap, at the end.
    """
    before: Tensor | None = None
    for begin in range(0, z.shape[2], stride):
        if before is not None and begin + 1 + lead >= z.shape[2]:
            return  # the tile before reached the end
        tile = decode(z[:, :, begin : begin + size + 1])
        if before is not None:
            tile = _fade(before, tile[:, :, 1 + lead * scale :], fade * scale)
        shown = stride * scale + (1 + lead * scale if before is None else 0)
        yield tile[:, :, :shown]
        before = tile[:, :, : shown + fade * scale]


def _fade(before: Tensor, tile: Tensor, count: int) -> Tensor:
    """`tile`, over whose first `count` frames the last ones of `before` fade out; as diffusers' `blend_t`."""
    count = min(before.shape[2], tile.shape[2], count)
    share = (torch.arange(count, dtype=torch.float64) / count).view(-1, 1, 1).to(tile)
    rest = (1 - torch.arange(count, dtype=torch.float64) / count).view(-1, 1, 1).to(tile)
    faded = before[:, :, before.shape[2] - count :] * rest + tile[:, :, :count] * share
    return torch.cat([faded, tile[:, :, count:]], dim=2)


def _in_tiles(vae: Any, z: Tensor) -> bool:
    """Whether the autoencoder takes latents of this size in tiles of the picture."""
    if not vae.use_tiling:
        return False
    sides = []
    for side, cells in (("height", z.shape[3]), ("width", z.shape[4])):
        most = getattr(vae, f"tile_latent_min_{side}", None)
        most = getattr(vae, f"tile_sample_min_{side}") // vae.spatial_compression_ratio if most is None else most
        sides.append(cells > most)
    return any(sides)


WAYS: dict[str, Callable[..., Iterator[Tensor]]] = {
    "AutoencoderKLWan": _wan,
    "AutoencoderKLCogVideoX": _cogvideox,
    "AutoencoderKLMochi": partial(_faded, lead=BACK),
    "AutoencoderKLHunyuanVideo": _hunyuan,
    "AutoencoderKLHunyuanVideo15": partial(_faded, lead=BACK),
    "AutoencoderKLLTXVideo": partial(_faded, lead=BOTH),
    "AutoencoderKLLTX2Video": partial(_faded, lead=BOTH),
    "AutoencoderKLTemporalDecoder": _svd,
    "AutoencoderKL": _pictures,
    "AutoencoderKLKinema": _kinema,
}
