"""Rotary positions as a table of plain numbers, for channels that are turned in neighbouring pairs.

Su et al., "RoFormer", 2021, arXiv:2104.09864: (a, b) -> (a cos - b sin, b cos + a sin). A table is (2, N or 1, L, D),
cos and sin of each channel; nothing holds it on the circle.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def turned(u: Tensor, table: Tensor) -> Tensor:
    """Queries or keys u (B, N, L, D) after the positions of a table, in the type of u."""
    cos, sin = table
    partner = torch.stack([-u[..., 1::2], u[..., 0::2]], dim=-1).flatten(-2)
    after: Tensor = u * cos + partner * sin
    return after.to(u.dtype)


def table_of(turn: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The table (2, N or 1, L, D) float32 with which `turn` turns queries of the shape (B, N, L, D) of `like`.

    It is read off what becomes of 1 in all first, and in all second channels of the pairs; so it is what `turn` does
    only where that turns neighbouring pairs, which `reproduces` tells. Heads that share a table have one row.
    """
    first = torch.zeros_like(like[:1], dtype=torch.float32)
    first[..., 0::2] = 1
    second = 1 - first
    a, b = turn(first), turn(second)  # (cos, sin) of each pair, and (-sin, cos)
    table = torch.cat([first * a + second * b, second * a - first * b])
    return table[:, :1] if (table == table[:, :1]).all() else table


def reproduces(table: Tensor, turn: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether a table does what `turn` does to queries of the shape of `like`, up to the rounding of float32."""
    channels = torch.arange(like[:1].numel(), device=like.device, dtype=torch.float64)
    u = (channels * 0.7390851).sin().float().reshape(like[:1].shape)  # numbers of no pattern
    return torch.allclose(turned(u, table), turn(u), rtol=0, atol=1e-4)
