"""Rotary tables for moved tokens, where they need more than a token's place: frames per second, the size of the grid.

A model call says how its tables are made; the attention processors inside it ask for one when a technique moved tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kinema.core.positions import Positions

Table = tuple[Tensor, Tensor]  # cos and sin, in the model's own shape

_made: Any = WeakTensorKeyDictionary()  # places -> (maker, table), as long as somebody keeps the places
_maker: ContextVar[Callable[[Tensor], Table] | None] = ContextVar("rotary_maker", default=None)


@contextmanager
def made_by(maker: Callable[[Tensor], Table]) -> Iterator[None]:
    """While open, `table` asks `maker` for tables of token places (L, 3) in latent cells."""
    token = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(token)


def table(places: Tensor, default: Tensor | None, own: Table) -> Table:
    """The model's own table for places nobody changed, else a new one from the maker of the call in progress."""
    maker = _maker.get()
    return own if places is default or maker is None else remembered(places, maker)


def remembered(places: Tensor, maker: Callable[[Tensor], Table]) -> Table:
    """What `maker` makes of places, once for each tensor of them: all layers of a network ask for the same."""
    known = _made.get(places)
    if known is None or known[0] != maker:
        known = _made[places] = maker, maker(places)
    table: Table = known[1]
    return table


def on_placed(u: Tensor, positions: Positions, side: str, turn: Callable[[Tensor], Tensor], dim: int) -> Tensor:
    """Queries or keys with `turn` applied to the tokens that have a place; side: "q" or "k", dim: of the tokens."""
    places, part = (positions.q, positions.q_part) if side == "q" else (positions.k, positions.k_part)
    if len(places) == 0:  # a part of the text alone
        return u
    if part is not None:
        return u.index_copy(dim, part.placed, turn(u.index_select(dim, part.placed)))
    first, last, count = positions.first, positions.first + len(places), u.shape[dim]
    turned = turn(u.narrow(dim, first, len(places)))
    return torch.cat([u.narrow(dim, 0, first), turned, u.narrow(dim, last, count - last)], dim=dim)
