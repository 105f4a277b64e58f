"""Where the tokens of one attention stand, and which tokens of the sequence a technique passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kinema.core.errors import KinemaError


@dataclass(frozen=True, eq=False)
class Part:
    """Some tokens of a sequence, in any order, also twice."""

    index: Tensor  # (n,): which tokens of `of` they are
    placed: Tensor  # (L,): which of the n have a place
    of: Part | None  # the part that they were taken from; None is the whole sequence

    def within(self, earlier: Part | None) -> Tensor:
        """Which tokens of an earlier part they are, (n,). Raises: KinemaError when they do not come from it."""
        index, source = self.index, self.of
        while source is not earlier:
            if source is None:
                raise KinemaError("positions do not come from those that a technique was given; use positions.part")
            index, source = source.index[index], source.of
        return index


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the tokens of one attention stand, in latent cells (frame, row, column); fractions are allowed.

    Text has no place: where the video reads text, k is empty. A technique that moves tokens returns a new object
    (`dataclasses.replace`, so that the other fields stay); whoever keeps the tensors keeps the model's own table. One
    that passes some of the tokens says which with `part`.
    """

    q: Tensor  # (L, 3)
    k: Tensor  # (L, 3)
    first: int = 0  # in joint attention: where these L tokens begin in the whole sequence; the others are text
    extra: int = 0  # how many of the whole sequence's, the last ones, stand beside the clip (see core/tokens.py)
    text: int = 0  # where text begins among the keys of the whole sequence
    q_part: Part | None = None  # the queries that are passed; None is the whole sequence in its order
    k_part: Part | None = None  # the keys
    turned: bool = False  # a technique has turned the queries and keys itself, as rotary positions do
    lent: range = range(0)  # which keys of the whole sequence a technique has added to the model's own

    def part(self, q: Tensor | None = None, k: Tensor | None = None) -> Positions:
        """The positions of the tokens `queries[:, :, q]` and `keys[:, :, k]`, of those that these positions are for.

        q and k: numbers of tokens (n,), in any order, also twice, or one bool a token; None is all of them.
        """
        found = self
        if q is not None:
            places, taken = _taken(q, self.q, self.placed_queries, self.q_part)
            found = replace(found, q=places, q_part=taken)
        if k is not None:
            places, taken = _taken(k, self.k, self.placed_keys, self.k_part)
            found = replace(found, k=places, k_part=taken)
        return found

    def with_lent(self, places: Tensor) -> Positions:
        """The positions with more keys, at places (n, 3), which all queries may see; of all tokens, not of a part.

        They stand at `lent`, behind the video and what stands beside it.
        """
        start = self.first + len(self.k)
        return replace(
            self,
            k=torch.cat([self.k, places]),
            extra=self.extra + len(places),
            text=self.text + len(places) * (self.text >= start),
            lent=range(self.lent.start if self.lent else start, start + len(places)),
        )

    @property
    def placed_queries(self) -> Tensor:
        """Which queries stand at the places q, (L,); the others are text."""
        return self._placed(self.q, self.q_part)

    @property
    def placed_keys(self) -> Tensor:
        """Which keys stand at the places k, (L,); the others are text."""
        return self._placed(self.k, self.k_part)

    def text_keys(self, tokens: Sequence[int]) -> Tensor:
        """Which keys are these tokens of the text, as `backbone.word_tokens` counts them, (n,)."""
        wanted = self.text + torch.tensor(list(tokens), dtype=torch.long, device=self.k.device)
        if self.k_part is None:
            return wanted
        return torch.isin(self.k_part.within(None), wanted).nonzero().flatten()

    def _placed(self, places: Tensor, part: Part | None) -> Tensor:
        if part is not None:
            return part.placed
        return torch.arange(self.first, self.first + len(places), device=places.device)


def _taken(asked: Tensor, places: Tensor, placed: Tensor, of: Part | None) -> tuple[Tensor, Part]:
    """The places of the tokens asked for, and which they are."""
    index = asked.nonzero().flatten() if asked.dtype == torch.bool else asked
    index = index.to(places.device)
    size = int(torch.cat([index, placed, index.new_zeros(1)]).max()) + 1
    row = torch.full((size,), -1, device=places.device)  # token -> its row of `places`
    row[placed] = torch.arange(len(placed), device=places.device)
    rows = row[index]
    return places[rows[rows >= 0]], Part(index, (rows >= 0).nonzero().flatten(), of)


def followed(u: Tensor, counts: tuple[int, int], now: Positions | None, given: Positions | None = None) -> Tensor:
    """What is known of pairs of tokens, (..., Lq or 1, Lk or 1), for the tokens that are passed now.

    counts: queries and keys that are passed. given: the positions of the tokens that u is for; None is the whole
    sequence. Of keys that were lent since, it is known that all may see them.
    Raises: KinemaError when it cannot be told which tokens were left.
    """
    lent = 0 if now is None else len(now.lent) - (0 if given is None else len(given.lent))
    parts = (None, None) if now is None else (now.q_part, now.k_part)
    earlier = (None, None) if given is None else (given.q_part, given.k_part)
    for dim, part, before, count in zip((-2, -1), parts, earlier, counts, strict=True):
        if u.shape[dim] == 1:
            continue
        if dim == -1 and now is not None and lent:
            u = _seen_by_all(u, now.lent[-lent:])
        if part is not None and part is not before:
            u = u.index_select(dim, part.within(before))
        if u.shape[dim] != count:
            what = "queries" if dim == -2 else "keys"
            raise KinemaError(
                f"{count} {what} are passed where {u.shape[dim]} were, and something is known of each of them (texts "
                "that frames read, a bias); pass the positions of a part, positions.part(q, k), where there are any"
            )
    return u


def _seen_by_all(u: Tensor, keys: range) -> Tensor:
    """u (..., Lk) with more keys at these numbers: True in a mask, 0 in a bias, -1 (`SHARED`) where it says whose."""
    free = True if u.dtype == torch.bool else 0 if u.is_floating_point() else -1
    more = u.new_full((*u.shape[:-1], len(keys)), free)
    return torch.cat([u[..., : keys.start], more, u[..., keys.start :]], dim=-1)
