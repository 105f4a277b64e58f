"""Logits of some of the tokens that a technique was given, and biases that many queries share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions

AT_ONCE = 4096  # queries whose logits are in memory together


def logits(
    next: Attention,
    q: Tensor,
    k: Tensor,
    positions: Positions | None,
    queries: Tensor | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    """q' k'T / sqrt(D) after rotary positions, without masks and biases, (B, N, Lq, Lk).

    queries, keys: numbers of tokens among q and k (B, N, L, D); None is all of them.
    """
    part = positions if positions is None or (queries is keys is None) else positions.part(queries, keys)
    some_q, some_k = (u if which is None else u[:, :, which] for u, which in ((q, queries), (k, keys)))
    turned_q, turned_k = next.turn(some_q, some_k, part)
    return turned_q @ turned_k.mT / math.sqrt(q.shape[-1])


def in_groups(
    next: Attention, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, group: Tensor, rows: Tensor
) -> Tensor:
    """Attention in which all queries of a group have the same biases, (B, N, Lq, D).

    group: (Lq,), the number of a query's group, below 0 for no bias. rows: (B or 1, N or 1, groups, Lk). A group goes
    through attention together, so that no bias of all queries by all keys is made.
    """
    out = q.new_empty((*q.shape[:3], v.shape[-1]))
    for number in torch.unique(group).tolist():
        mine = (group == number).nonzero().flatten()
        part = None if positions is None else positions.part(q=mine)
        bias = rows[:, :, number, None] if number >= 0 else None
        out[:, :, mine] = next(q[:, :, mine], k, v, part, bias)
    return out


def largest_logit(
    next: Attention,
    q: Tensor,
    k: Tensor,
    positions: Positions | None,
    queries: Tensor | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    """The largest logit of some queries and keys, (B, N, 1, 1); None is all of them."""
    queries = torch.arange(q.shape[2], device=q.device) if queries is None else queries
    parts = [
        logits(next, q, k, positions, part, keys).amax(dim=(-2, -1), keepdim=True)
        for part in torch.split(queries, AT_ONCE)
    ]
    return torch.stack(parts).amax(dim=0)
