"""What guidances share that compare with a model whose self-attention is switched off in some blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

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
        return v if step.branch == "perturbed" and first <= site.block <= last else next(q, k, v, positions)
