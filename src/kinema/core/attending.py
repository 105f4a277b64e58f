"""What a technique gets as `next` in its hook `attend`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.positions import Part, Positions, followed

Turn = Callable[[Tensor, Tensor, Positions | None], tuple[Tensor, Tensor]]
Read = Callable[[Tensor, Tensor, Tensor, Positions | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Attention:
    """The attention of one site, with the techniques inside it.

    `next(q, k, v, positions, bias)`: softmax(logits + bias) v, (B, N, Lq, D), with logits q' k'T / sqrt(D) of queries
    and keys after their rotary positions. The bias is broadcastable to (B, N, Lq, Lk); -inf takes a key out. It comes
    on top of what the model masks, and of the biases of other techniques. A technique may pass some of the tokens,
    with `positions.part`, where positions are not None.
    `next.turn(q, k, positions)`: q' and k', which are q and k where a model turns nothing; gradients go through both.
    """

    turn: Turn
    attend: Read  # of q and k before their rotary positions

    @classmethod
    def of(cls, turn: Turn, read: Read) -> Attention:
        """A family's own. read: the same as `attend` with q and k after their rotary positions, bias 4-dimensional."""

        def turned(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            return (q, k) if positions is not None and positions.turned else turn(q, k, positions)

        def attend(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            if positions is not None:
                _check(q, "queries", positions.q, positions.q_part)
                _check(k, "keys", positions.k, positions.k_part)
            return read(*turned(q, k, positions), v, positions, None if bias is None else _whole(bias, q, k))

        return cls(turned, attend)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None = None
    ) -> Tensor:
        return self.attend(q, k, v, positions, bias)

    def biased(self, bias: Tensor | None, given: Positions | None) -> Attention:
        """The same, with a bias for the tokens of `given` on top of what it is called with."""
        if bias is None:
            return self

        def attend(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, more: Tensor | None) -> Tensor:
            mine = followed(_square(bias), (q.shape[2], k.shape[2]), positions, given)
            return self.attend(q, k, v, positions, mine if more is None else mine + more)

        return Attention(self.turn, attend)


def _square(bias: Tensor) -> Tensor:
    """A bias with dimensions for queries and keys."""
    return bias[(None,) * (2 - bias.ndim)]


def _whole(bias: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """A bias of four dimensions in the type of q. Raises: KinemaError for one that does not belong to q and k."""
    whole = (*q.shape[:3], k.shape[2])
    fits = all(n in (1, most) for n, most in zip(bias.shape[::-1], whole[::-1], strict=False))
    if bias.ndim > 4 or not fits or not bias.is_floating_point():
        raise KinemaError(
            f"the bias of an attention is {bias.dtype} of {tuple(bias.shape)}; use floats broadcastable to {whole}"
        )
    return bias[(None,) * (4 - bias.ndim)].to(q.dtype)


def _check(u: Tensor, what: str, places: Tensor, part: Part | None) -> None:
    """Raises: KinemaError when tokens and their positions do not belong together."""
    if u.shape[2] < len(places) if part is None else u.shape[2] != len(part.index):
        given = len(places) if part is None else len(part.index)
        raise KinemaError(f"{u.shape[2]} {what} are passed with the positions of {given}; use positions.part(q, k)")
