"""Rotary tables for moved tokens, where they need more than a token's place: frames per second, the size of the grid.

A model call says how its tables are made; the attention processors inside it ask for one when a technique moved tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

Table = tuple[Tensor, Tensor]  # cos and sin, in the model's own shape

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
    return own if places is default or maker is None else maker(places)
