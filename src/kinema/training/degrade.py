"""Clean rendered clips made worse in the ways decoders, codecs and cameras make pictures worse.

Used while the judge is trained, so that it reads soft, noisy and compressed clips too. Nothing here changes what a
clip shows: no hue shift, no mirror, no change of time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def degrade(x: Tensor, generator: torch.Generator, share: float = 0.6, bend: bool = True) -> Tensor:
    """Clips (B, T, 3, H, W) in 0..1 -> the same, `share` of them made worse, each by its own amounts.

    H and W must be multiples of 8. The generator has to live on the device of `x`. Without `bend` outlines stay where
    they are.
    """
    if x.shape[-1] % 8 or x.shape[-2] % 8:
        raise ValueError(f"clips are {x.shape[-2]}x{x.shape[-1]} pixels; use multiples of 8")
    chosen = (torch.rand(len(x), generator=generator, device=x.device) < share).nonzero().flatten()
    if not len(chosen):
        return x
    return x.index_copy(0, chosen, _worse(x[chosen], generator, bend))


def _worse(x: Tensor, generator: torch.Generator, bend: bool) -> Tensor:
    """Soft, smeared in time, noisy, blocky, of another brightness: a random amount of each."""
    b, device = len(x), x.device

    def draw(low: float, high: float, *shape: int, share: float = 1.0) -> Tensor:
        value = low + (high - low) * torch.rand(b, *shape, generator=generator, device=device)
        value = value * (torch.rand(b, *shape, generator=generator, device=device) < share)
        return value.view(b, *shape, *[1] * (4 - len(shape)))

    if bend:
        x = wobble(x, draw(0.0, 2.0, share=0.6), generator)
    x = x + draw(0.0, 1.0, share=0.7) * (soften(x) - x)
    past = torch.cat([x[:, :1], x[:, :-1]], 1)
    x = x + draw(0.0, 0.35, share=0.4) * (past - x)
    coarse = torch.randn(b, 3, max(2, x.shape[1] // 4), 8, 8, generator=generator, device=device)
    coarse = F.interpolate(coarse, (x.shape[1], *x.shape[-2:]), mode="trilinear").transpose(1, 2)
    fine = torch.randn(x.shape, generator=generator, device=device)
    x = x + draw(0.0, 0.04) * coarse + draw(0.0, 0.04, share=0.7) * fine
    x = quantise_blocks(x, draw(0.0, 0.12, share=0.35))
    gain = draw(-0.15, 0.15) + draw(-0.03, 0.03, 1, 3)
    return (x * (1 + gain) + draw(-0.06, 0.06)).clamp(0, 1)


def wobble(x: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Bend clips (B, T, C, H, W) by up to `pixels` (B, 1, 1, 1, 1), as outlines of generated things do in time.

    The bends are smooth in space (a quarter of the picture) and change every two frames.
    """
    b, t, _, h, w = x.shape
    field = torch.randn(b, 2, (t + 1) // 2, 5, 5, generator=generator, device=x.device)
    field = F.interpolate(field.flatten(1, 2), (h, w), mode="bicubic", align_corners=True)
    field = torch.unflatten(field, 1, (2, -1)).repeat_interleave(2, dim=2)[:, :, :t].permute(0, 2, 3, 4, 1)
    field = field * pixels / torch.tensor([w, h], device=x.device)  # -1..1 is a picture: half of `pixels` on average
    rows, columns = (torch.linspace(-1, 1, n, device=x.device) for n in (h, w))
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1) + field
    bent = F.grid_sample(x.flatten(0, 1), grid.flatten(0, 1), padding_mode="border", align_corners=True)
    return torch.unflatten(bent, 0, (b, t))


def soften(x: Tensor) -> Tensor:
    """Mean of each 3x3 neighbourhood of (B, T, C, H, W)."""
    return torch.unflatten(F.avg_pool2d(x.flatten(0, 1), 3, 1, 1, count_include_pad=False), 0, x.shape[:2])


def quantise_blocks(x: Tensor, step: Tensor) -> Tensor:
    """Round the cosine coefficients of 8x8 blocks, coarser for higher frequencies, as JPEG does (ITU-T T.81, 1992).

    x (B, T, C, H, W) in 0..1; step (B, 1, 1, 1, 1), in units of the coefficients of an orthonormal transform; 0
    leaves a clip as it is.
    """
    touched = (step.flatten() > 0).nonzero().flatten()
    if not len(touched):
        return x
    k = torch.arange(8, device=x.device, dtype=x.dtype)
    dct = torch.cos(math.pi * (2 * k + 1) * k[:, None] / 16) / 2  # (frequency, place)
    dct[0] /= math.sqrt(2)
    blocks = torch.unflatten(torch.unflatten(x[touched], -1, (-1, 8)), -3, (-1, 8)).transpose(
        -3, -2
    )  # (..., h, w, 8, 8)
    coefficients = dct @ blocks @ dct.T
    width = step[touched][..., None, None] * (1 + (k + k[:, None]) / 2)
    blocks = dct.T @ ((coefficients / width).round() * width) @ dct
    out = x.clone()
    out[touched] = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)
    return out


def shift(x: Tensor, pixels: Tensor) -> Tensor:
    """Move clips (B, T, C, H, W) by whole pixels (B, 2) right and down; edges are continued."""
    h, w = x.shape[-2:]
    moved = []
    for clip, (dx, dy) in zip(x, pixels.tolist(), strict=True):
        rows = (torch.arange(h, device=x.device) - dy).clamp(0, h - 1)
        columns = (torch.arange(w, device=x.device) - dx).clamp(0, w - 1)
        moved.append(clip.index_select(-2, rows).index_select(-1, columns))
    return torch.stack(moved)
