"""An adapter that is a thin branch beside a model: it sees the noisy latents and maps of its condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kinema.core.adapter import AdapterNetwork, ModelFace
from kinema.core.features import Inside, Place
from kinema.layers.branch import Clock, ThinBlock, counted, fitted, patches, places_table, zeros


class Branch(NamedTuple):
    """The branch between two blocks."""

    tokens: tuple[int, int, int]  # along frames, rows and columns
    time: Tensor  # (B', L, D)
    table: Tensor  # of the rotary places
    state: list[Tensor]  # [c], which goes on from block to block


class BranchNetwork(AdapterNetwork):
    """c = embed(x, maps); behind base block i: c = block_i(c + F_i h), h += W_i c, with F_i = W_i = 0 at first."""

    def __init__(self, face: ModelFace, blocks: Sequence[int], maps: int, width: int, heads: int) -> None:
        """maps: channels of the condition's maps."""
        super().__init__(face, tuple(blocks))
        self.patch = face.patch if face.patch[1] > 1 else (face.patch[0], 2, 2)
        cells = self.patch[0] * self.patch[1] * self.patch[2]
        self.embed = nn.Linear((face.channels + maps) * cells, width)
        self.clock = Clock(width)
        self.thin = nn.ModuleDict({str(i): ThinBlock(width, heads) for i in self.blocks})
        self.feedback = nn.ModuleDict({str(i): zeros(nn.Linear(face.widths[i], width)) for i in self.blocks})
        self.to_base = nn.ModuleDict({str(i): zeros(nn.Linear(width, face.widths[i])) for i in self.blocks})
        self.head_width = width // heads

    def begun(self, inside: Inside, maps: Tensor, told: Tensor | None = None) -> Branch:
        """The branch ahead of the first block. maps: (B, maps, T, H, W) of the run; told: (B', D), beside the time."""
        x = torch.cat([inside.x.float(), inside.of(maps, dim=2).float()], dim=1)
        tokens = counted(x.shape, self.patch)
        time = self.clock(inside.levels[:, :: self.patch[0]])
        time = time if told is None else time + told[:, None]
        table = places_table(tokens, self.head_width, x.device)
        return Branch(
            tokens, time.repeat_interleave(tokens[1] * tokens[2], dim=1), table, [self.embed(patches(x, self.patch))]
        )

    def residual(self, seen: Branch, place: Place, h: Tensor) -> Tensor:
        i = str(place.block)
        seen_h = fitted(self.feedback[i](h.float()), place.tokens, seen.tokens)
        seen.state[0] = self.thin[i](seen.state[0] + seen_h, seen.time, seen.table)
        out: Tensor = self.to_base[i](fitted(seen.state[0], seen.tokens, place.tokens))
        return out
