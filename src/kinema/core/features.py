"""What a technique sees between the blocks of a network: features of the video's tokens, and the call they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kinema.core.windows import Window


@dataclass(frozen=True)
class Place:
    """Behind which block features are seen, and how its tokens lie."""

    block: int  # index of the block, as in `Site.block`
    width: int  # D, channels of a token
    tokens: tuple[int, int, int]  # along frames, rows and columns; in this order they follow each other


@dataclass(eq=False)
class Inside:
    """One call of the network, as the hook `features` is told of it. B' counts the samples of all its branches."""

    x: Tensor  # the clip's latents that went in, (B', C, T, H, W)
    t: float | Tensor  # noise level: a float, (B',) or (B', T)
    dropped: Sequence[frozenset[str]]  # what its branches leave out; samples come branch by branch
    window: Window | None = None  # the part of the clip that is seen; None is all of it
    known: Tensor | None = None  # which latent frames are given and clean, (B', T) bool
    memo: dict[int, Any] = field(default_factory=dict)  # of the techniques, by identity; for this call alone

    def keeps(self, condition: str) -> Tensor:
        """Which samples have this condition, (B',) bool."""
        kept = torch.tensor([condition not in left for left in self.dropped], device=self.x.device)
        return kept.repeat_interleave(len(self.x) // len(self.dropped))

    def of(self, u: Tensor, dim: int | None = None) -> Tensor:
        """What belongs to the samples of a run, (B, ...), for those of this call, (B', ...).

        dim: its axis of latent frames, of which those of the window are taken.
        """
        if dim is not None and self.window is not None:
            u = u.narrow(dim, self.window.first, self.window.stop - self.window.first)
        return u.repeat(len(self.x) // len(u), *[1] * (u.ndim - 1))

    @property
    def levels(self) -> Tensor:
        """The noise level of each latent frame, (B', T) float32."""
        t = torch.as_tensor(self.t, dtype=torch.float32, device=self.x.device)
        t = t.reshape(-1, 1) if t.ndim < 2 else t
        levels = t.expand(len(self.x), self.x.shape[2])
        return levels if self.known is None else levels.masked_fill(self.known, 0.0)
