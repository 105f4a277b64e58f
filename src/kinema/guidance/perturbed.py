"""What guidances share that compare with a model whose self-attention is switched off in some blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.attention import Positions, Site


@dataclass(frozen=True, kw_only=True)
class Perturbed(Technique):
    """In the branch "perturbed" every token keeps only itself in the blocks first .. last of `run.state[self]`."""

    def attend(
        self,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        next: Callable[..., Tensor],
    ) -> Tensor:
        assert step.run is not None
        first, last = step.run.state[self]
        if step.branch != "perturbed" or not first <= site.block <= last:
            return next(q, k, v, positions)
        return own_values(q, v, positions)


def own_values(q: Tensor, v: Tensor, positions: Positions | None) -> Tensor:
    """The values of the own tokens of queries q, of values v (B, N, Lk, D); another technique may pass parts of both.

    Raises: KinemaError when a query is passed without its own token among the keys.
    """
    if positions is None:
        return v[:, :, : q.shape[2]]  # a UNet's: what is lent stands behind
    lent = positions.lent
    if positions.q_part is positions.k_part is None:
        return torch.cat([v[:, :, : lent.start], v[:, :, lent.stop :]], dim=2) if lent else v
    of_q, of_k = (
        torch.arange(count, device=v.device) if part is None else part.within(None)
        for count, part in ((q.shape[2], positions.q_part), (v.shape[2], positions.k_part))
    )
    of_q = of_q + len(lent) * (of_q >= lent.start)
    row = torch.full((int(torch.cat([of_q, of_k]).max()) + 1,), -1, device=v.device)  # token -> its row of v
    row[of_k] = torch.arange(len(of_k), device=v.device)
    if (row[of_q] < 0).any():
        raise KinemaError("attention is off for tokens whose own values are not passed; leave a technique out")
    return v[:, :, row[of_q]]
