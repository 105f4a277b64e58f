"""A thin transformer that runs beside a video model: what adapters with a branch of their own are made of.

Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022, arXiv:2212.09748 (blocks that are told the time);
rotary places along frames, rows and columns as in RoFormer, 2021, arXiv:2104.09864, so that a branch which was trained
on short clips also sees long ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.layers.rotary_pairs import turned

CLOCK = 1000.0  # noise levels 0..1 are told as times 0..1000


def counted(shape: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """How tokens of maps (..., T, H, W) lie: along frames, rows and columns; the last ones may hang over."""
    frames, rows, columns = (-(-n // p) for n, p in zip(shape[-3:], patch, strict=True))
    return frames, rows, columns


def patches(u: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Maps (B, C, T, H, W) -> tokens (B, L, C pt ph pw), by frames, rows, columns; zero beyond the edges."""
    (b, c), (t, h, w), (pt, ph, pw) = u.shape[:2], counted(u.shape, patch), patch
    u = F.pad(u, (0, w * pw - u.shape[4], 0, h * ph - u.shape[3], 0, t * pt - u.shape[2]))
    u = u.reshape(b, c, t, pt, h, ph, w, pw)
    return u.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, t * h * w, c * pt * ph * pw)


def fitted(u: Tensor, tokens: tuple[int, int, int], to: tuple[int, int, int]) -> Tensor:
    """Tokens (B, L, D) that lie as `tokens`, for places that lie as `to`: means of areas, or the nearest."""
    if tokens == to:
        return u
    volume = u.reshape(len(u), *tokens, -1).permute(0, 4, 1, 2, 3)
    shrinks = all(n <= m for n, m in zip(to, tokens, strict=True))
    volume = F.adaptive_avg_pool3d(volume, to) if shrinks else F.interpolate(volume, to, mode="nearest")
    return volume.flatten(2).transpose(1, 2)


def waves(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of values (...), (..., width); periods from 2 pi up to 2 pi `longest`."""
    half = width // 2
    rate = torch.exp(-math.log(longest) * torch.arange(half, device=values.device) / half)
    angle = values[..., None].float() * rate
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def places_table(tokens: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """The rotary table (2, 1, L, width) of tokens that lie as `tokens`: half of the pairs for frames, then rows and
    columns."""
    axis = 2 * (width // 8)
    sizes = (width - 2 * axis, axis, axis)
    grid = torch.meshgrid(*[torch.arange(n, device=device) for n in tokens], indexing="ij")
    angles = []
    for places, size in zip(grid, sizes, strict=True):
        rate = 100.0 ** -(torch.arange(0, size, 2, device=device) / max(size, 1))
        angles.append(places.reshape(-1, 1) * rate)
    angle = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)[None]
    return torch.stack([angle.cos(), angle.sin()])


class Clock(nn.Module):
    """Noise levels (...) -> (..., width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, levels: Tensor) -> Tensor:
        out: Tensor = self.second(F.silu(self.first(waves(CLOCK * levels, self.width))))
        return out


class ThinBlock(nn.Module):
    """Attention among all tokens and a perceptron, each told the time of its tokens; begins as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads or width // heads < 8 or width // heads % 2:
            raise ValueError(f"width is {width} with {heads} heads; use an even number of at least 8 channels a head")
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.told = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.told.weight)
        nn.init.zeros_(self.told.bias)

    def forward(self, c: Tensor, time: Tensor, table: Tensor) -> Tensor:
        """c (B, L, D); time (B, L or 1, D); table: of the places, see `places_table`."""
        a, b, gate, d, e, gate_wide = self.told(F.silu(time)).chunk(6, dim=-1)
        q, k, v = self.qkv(self.norm(c) * (1 + a) + b).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(turned(q, table), turned(k, table), v).transpose(1, 2).flatten(2)
        c = c + gate * self.out(seen)
        wide = F.gelu(self.wide(self.norm(c) * (1 + d) + e))
        out: Tensor = c + gate_wide * self.narrow(wide)
        return out


def zeros(layer: nn.Linear) -> nn.Linear:
    """The layer with all weights zero: what it adds begins as nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
