"""How a technique sees attention: named sites of a model, and the taps a run puts on them.

A backbone calls `taps.attend` from its attention processors. The taps of the run in progress travel in a context
variable, so that two runs in two threads on one model do not see each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kinema.core.technique import Step, Technique


@dataclass(frozen=True)
class Site:
    """One attention of a model."""

    block: int  # index of the block, from 0
    kind: str  # "self", "cross", "joint", "temporal" or "spatial"
    heads: int
    head_dim: int


@dataclass(frozen=True)
class Positions:
    """Where the tokens of one attention stand, in latent cells (frame, row, column); fractions are allowed.

    A technique that moves tokens returns a new object; whoever keeps the tensors keeps the model's own table.
    """

    q: Tensor  # (L, 3)
    k: Tensor  # (L, 3)
    first: int = 0  # in joint attention: where these L tokens begin in the sequence; the others are text


@dataclass(frozen=True)
class Taps:
    """The techniques of one run that asked for attention, during one model call."""

    step: Step
    techniques: Sequence[Technique]  # those that override a hook of HOOKS
    positions: Positions | None = None  # the backbone's token grid for this call
    patch: tuple[int, int, int] = (1, 1, 1)  # latent cells of a token: frames, rows, columns
    texts: int = 1  # prompts whose tokens stand one behind the other in this call, the request's own first

    HOOKS: ClassVar = ("attend", "positions", "context")

    def at(self, site: Site) -> list[Technique]:
        """Techniques that act at `site` in this step, outermost first."""
        return [t for t in self.techniques if t.active(self.step) and _in_blocks(t, site) and t.wants(site)]

    def acts(self, site: Site) -> bool:
        """Whether attention at `site` is anything else than the model's own in this call."""
        return bool(self.at(site)) or (self.texts > 1 and site.kind in ("cross", "joint"))

    def reads(self, site: Site) -> Tensor | None:
        """Which video token reads which text at `site`, (L, texts) bool; None where there is only the prompt."""
        if self.texts == 1 or self.positions is None:
            return None
        frame = self.positions.q[:, 0].long()  # the latent frame of each token
        count = int(frame.max()) + self.patch[0]
        asked = None
        for t in self.techniques:
            if t.overrides("context") and t.active(self.step) and _in_blocks(t, site):
                asked = t.context(self.step, site, count)
        own = torch.ones(1, count, dtype=torch.bool, device=frame.device)
        if asked is None:
            asked = torch.zeros(self.texts - 1, count, dtype=torch.bool, device=frame.device)
        else:
            asked = asked.to(frame.device)
            own = ~asked.any(dim=0, keepdim=True)
        return torch.cat([own, asked])[:, frame].T

    def place(self, site: Site) -> Positions | None:
        """Token positions at `site` after every technique that moves them, in list order; None where there are none."""
        positions = self.positions
        for t in self.at(site):
            if positions is not None and t.overrides("positions"):
                positions = t.positions(self.step, site, positions)
        return positions

    def attend(
        self, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, plain: Callable[..., Tensor]
    ) -> Tensor:
        """Nests the techniques around `plain(q, k, v, positions)`, which applies rotary positions and attends."""
        call = plain
        for t in reversed(self.at(site)):
            if t.overrides("attend"):
                call = _around(t, self.step, site, call)
        return call(q, k, v, positions)


def _in_blocks(technique: Technique, site: Site) -> bool:
    blocks = technique.block_range
    return blocks is None or blocks[0] <= site.block <= blocks[1]


def _around(technique: Technique, step: Step, site: Site, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None) -> Tensor:
        return technique.attend(step, site, q, k, v, positions, inner)

    return call


current_taps: ContextVar[Taps | None] = ContextVar("current_taps", default=None)
