"""Which tokens of an attention belong to which latent frame, and tables that say something of pairs of frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.positions import Part
    from kinema.core.technique import Step

T = TypeVar("T")
AT_ONCE = 4096  # queries whose probabilities are in memory together


@dataclass(frozen=True, eq=False)
class FrameTokens:
    """The tokens of one attention by frame: `frames` of `rows` x `columns`, and in joint attention text.

    A frame is what one token covers of the clip in time: a latent frame, or `patch[0]` of them. At a temporal site of
    a UNet the places of a picture stand in the batch, and a frame is one token; there rows and columns are what the
    batch is made of.
    """

    frames: int
    rows: int
    columns: int
    q: Tensor  # (Lq,) the frame of each query; -1 for text and for what stands beside the clip
    k: Tensor  # (Lk,) the frame of each key
    first: int | None = 0  # the token with which the clip begins; None where only some tokens are passed
    in_batch: bool = False  # the places of a picture stand in the batch

    def seen(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Which queries and which keys, (n,) each, belong to frames first .. stop - 1, or to no frame at all."""
        of_q, of_k = (((of < 0) | ((of >= first) & (of < stop))).nonzero().flatten() for of in (self.q, self.k))
        return of_q, of_k

    def bias(self, table: Tensor) -> Tensor:
        """A table of frames by frames (..., T, T) as a bias of the logits (..., Lq, Lk): 0 for all other tokens."""
        return torch.nn.functional.pad(table, (0, 1, 0, 1))[..., self.q[:, None], self.k]

    def table(self, q: Tensor, k: Tensor) -> Tensor:
        """How much each frame looks at each frame, (B, N, T, T) float32, from q and k (B, N, L, D) after `next.turn`.

        The probability of all keys of a frame, and the mean of that over the queries of a frame. Where there is text
        or something beside the clip, a row sums to less than 1. No map of all queries by all keys is ever made.
        """
        members_q, members_k = (_members(u, self.frames) for u in (self.q, self.k))
        found = q.new_zeros((*q.shape[:2], self.frames, self.frames), dtype=torch.float32)
        for some, of in zip(torch.split(q, AT_ONCE, dim=2), torch.split(members_q, AT_ONCE), strict=True):
            logits = some @ k.mT / math.sqrt(q.shape[-1])
            found += of.T @ (logits.softmax(-1, dtype=torch.float32) @ members_k)
        return found / members_q.sum(0)[:, None]

    def video(self, u: Tensor) -> Tensor:
        """The clip's part of queries or outputs u (B, N, L, D) as a volume (B', N, T, rows, columns, D)."""
        if self.in_batch:
            apart = u.reshape(-1, self.rows, self.columns, *u.shape[1:])  # (B', rows, columns, N, T, D)
            return apart.permute(0, 3, 4, 1, 2, 5)
        return u[:, :, self._clip].reshape(*u.shape[:2], self.frames, self.rows, self.columns, u.shape[3])

    def with_video(self, u: Tensor, volume: Tensor) -> Tensor:
        """u (B, N, L, D) with a volume of `video` in the place of the clip's part."""
        if self.in_batch:
            return volume.permute(0, 3, 4, 1, 2, 5).flatten(0, 2).to(u.dtype)
        out = u.clone()
        out[:, :, self._clip] = volume.flatten(2, 4).to(u.dtype)
        return out

    @property
    def _clip(self) -> slice:
        assert self.first is not None, "only some of the tokens are passed"
        return slice(self.first, self.first + self.frames * self.rows * self.columns)


@dataclass(frozen=True, eq=False)
class View:
    """Some queries and the keys that they see."""

    q: Tensor | slice
    k: Tensor | slice
    positions: Positions

    @classmethod
    def of(cls, positions: Positions, q: Tensor, k: Tensor) -> View:
        """Of the queries q and the keys k, numbers of tokens (n,)."""
        return cls(_in_a_row(q), _in_a_row(k), positions.part(q, k))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, next: Attention) -> Tensor:
        """Their attention, of the q, k and v of all tokens."""
        return next(q[:, :, self.q], k[:, :, self.k], v[:, :, self.k], self.positions)


class Kept(Generic[T]):
    """What is made of the tokens of an attention, kept while layer after layer has the same tokens."""

    def __init__(self) -> None:
        self._known: tuple[tuple[object, ...], T] | None = None

    def of(self, tokens: FrameTokens, positions: Positions, make: Callable[[], T]) -> T:
        of = (positions.q_part, positions.k_part, positions.turned)
        now = (tokens.q, tokens.k, positions.q, positions.k, *of, positions.first, positions.extra, positions.text)
        if self._known is None or any(a is not b for a, b in zip(now, self._known[0], strict=True)):
            self._known = now, make()
        return self._known[1]


def frame_tokens(step: Step, site: Site, q: Tensor, k: Tensor, positions: Positions | None) -> FrameTokens:
    """The tokens by frame of what a technique was given at a "self", "joint" or "temporal" site, in its `attend`."""
    assert step.run is not None
    shape, patch = step.run.conditions.shape, step.run.backbone.patch
    clip = shape[2] if step.window is None else step.window.stop - step.window.first
    frames, rows, columns = (n // p for n, p in zip((clip, *shape[3:]), patch, strict=True))
    in_batch = site.kind == "temporal"
    if in_batch:
        samples = shape[0] * (step.branch.count("+") + 1)
        while len(q) < samples * rows * columns:  # every level of a UNet halves the picture, rounding up
            rows, columns = -(-rows // 2), -(-columns // 2)
    first = 0 if positions is None else positions.first
    parts = (None, None) if positions is None else (positions.q_part, positions.k_part)
    cells = 1 if in_batch else rows * columns
    of_q, of_k = (
        _frame_of(u.shape[2], part, first, cells, frames, u.device) for u, part in zip((q, k), parts, strict=True)
    )
    return FrameTokens(frames, rows, columns, of_q, of_k, first if parts == (None, None) else None, in_batch)


def _frame_of(count: int, part: Part | None, first: int, cells: int, frames: int, device: torch.device) -> Tensor:
    """The frame of each of `count` tokens, -1 for those that belong to none."""
    if part is None:
        return _frame_of_all(count, first, cells, frames, device)
    number = part.within(None) - first
    return torch.where((number >= 0) & (number < frames * cells), number // cells, -1)


@lru_cache(maxsize=64)
def _frame_of_all(count: int, first: int, cells: int, frames: int, device: torch.device) -> Tensor:
    number = torch.arange(count, device=device) - first
    return torch.where((number >= 0) & (number < frames * cells), number // cells, -1)


def _in_a_row(tokens: Tensor) -> Tensor | slice:
    """A slice, which copies nothing, for numbers of tokens (n,) that follow each other."""
    if len(tokens) == 0 or not torch.equal(tokens, torch.arange(len(tokens), device=tokens.device) + tokens[0]):
        return tokens
    return slice(int(tokens[0]), int(tokens[-1]) + 1)


def _members(frame_of: Tensor, frames: int) -> Tensor:
    """1 where a token belongs to a frame, (L, T) float32."""
    return (frame_of[:, None] == torch.arange(frames, device=frame_of.device)).float()
