"""How a technique sees attention: named sites of a model, and the taps a run puts on them.

A backbone calls `taps.attend` from its attention processors. The taps of the run in progress travel in a context
variable, so that two runs in two threads on one model do not see each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from kinema.core.attending import Attention
from kinema.core.features import Place
from kinema.core.positions import Positions as Positions

if TYPE_CHECKING:
    from kinema.core.features import Inside
    from kinema.core.technique import Step, Technique
    from kinema.core.tokens import Tokens


KINDS = {
    "self": "all tokens of the video among themselves",
    "cross": "the video reads the text",
    "joint": "video and text in one sequence",
    "temporal": "each place of the picture over time",
    "spatial": "each frame by itself, or its reading of the text",
    "sound_self": "the tokens of the sound among themselves",
    "sound_cross": "the sound reads the text",
    "sound_to_video": "the video reads the sound",
    "video_to_sound": "the sound reads the video",
}
READ_TEXT = ("cross", "joint", "sound_cross")  # where frames may read texts of their own


@dataclass(frozen=True)
class Site:
    """One attention of a model."""

    block: int  # index of the block, from 0
    kind: str  # one of KINDS
    heads: int
    head_dim: int
    up: int | None = None  # on the way up of a U-Net: which of its blocks there, 0 is the coarsest; None elsewhere


# To which text a token of joint attention belongs (`Taps.owners`), where it is none by number.
SHARED, PADDING = -1, -2  # read by all, read by none


@dataclass(frozen=True)
class Taps:
    """The techniques of one run that asked for attention, and what a backbone knows of the model call in progress."""

    step: Step
    techniques: Sequence[Technique]  # those that override a hook of HOOKS
    beside: Sequence[Tokens] = ()  # what stands beside the clip in this call
    positions: Positions | None = None  # where the tokens of this call stand
    own: Tensor | None = None  # (L, 3): the places the model itself gives them
    padding: int = 0  # latent frames before the clip's first
    frames: int = 0  # latent frames of the clip in this call
    before: int = 0  # latent frames of the clip ahead of them, where the call sees a part of it
    whole: int = 0  # latent frames of the clip
    patch: tuple[int, int, int] = (1, 1, 1)  # latent cells of a token: frames, rows, columns
    texts: int = 1  # prompts whose tokens stand one behind the other in this call, the request's own first
    owners: Tensor | None = None  # (B or 1, P): in joint attention, to which text a token belongs
    inside: Inside | None = None  # the call itself, for the hook `features`

    HOOKS: ClassVar = ("reword", "attend", "positions", "features", "context", "tokens", "skip")

    def at(self, site: Site) -> list[Technique]:
        """Techniques that act at `site` in this step, outermost first."""
        acting = [t for t in self.techniques if t.overrides("attend") or t.overrides("positions")]
        return [t for t in acting if t.active(self.step) and _in_blocks(t, site.block) and t.wants(site)]

    def acts(self, site: Site) -> bool:
        """Whether attention at `site` is anything else than the model's own in this call."""
        moved = self.positions is not None and self.positions.q is not self.own and site.kind in ("self", "joint")
        return moved or bool(self.at(site)) or (self.texts > 1 and site.kind in READ_TEXT)

    def skips(self, block: int) -> bool:
        """Whether a block is left out in this call."""
        return any(
            t.overrides("skip") and t.active(self.step) and _in_blocks(t, block) and t.skip(self.step, block)
            for t in self.techniques
        )

    def worded(self, text: Tensor) -> Tensor:
        """Text tokens (B', P, D) after every technique that changes them."""
        for t in self.techniques:
            if t.overrides("reword") and t.active(self.step):
                assert self.inside is not None
                text = t.answered("reword", t.reword(self.step, text, self.inside), text.shape)
        return text

    @property
    def looks_inside(self) -> bool:
        """Whether anybody sees features in this call."""
        return any(t.overrides("features") and t.active(self.step) for t in self.techniques)

    def passing(self, block: int, h: Tensor, tokens: tuple[int, int, int]) -> Tensor:
        """Features (B', L, D) that leave a block, after every technique that changes them.

        tokens: of the clip, along frames, rows and columns; others behind them stand beside the clip.
        """
        count = tokens[0] * tokens[1] * tokens[2]
        for t in self.techniques:
            if t.overrides("features") and t.active(self.step) and _in_blocks(t, block):
                assert self.inside is not None
                place, clip = Place(block, h.shape[2], tokens), h[:, :count]
                found = t.answered("features", t.features(self.step, place, clip, self.inside), clip.shape)
                h = found if len(clip[0]) == len(h[0]) else torch.cat([found, h[:, count:]], dim=1)
        return h

    def reads_by_frame(self, site: Site) -> Tensor | None:
        """Which latent frame of the clip reads which text at `site`, (frames, texts) bool; None with one text."""
        if self.texts == 1 or self.own is None:
            return None
        asked = None
        for t in self.techniques:
            if t.overrides("context") and t.active(self.step) and _in_blocks(t, site.block):
                asked = t.context(self.step, site, self.whole)
        reads = torch.zeros(self.frames, self.texts, dtype=torch.bool, device=self.own.device)
        if asked is not None:
            reads[:, 1:] = asked.to(reads.device).T[self.before : self.before + self.frames]
        reads[:, 0] = ~reads.any(dim=1)
        return reads

    def reads(self, site: Site) -> Tensor | None:
        """Which video token reads which text at `site`, (L, texts) bool; None where there is only the prompt.

        A token of several latent frames reads as the first of them that belongs to the clip. What stands beside the
        clip reads the request's own prompt.
        """
        by_frame = self.reads_by_frame(site)
        if by_frame is None or self.own is None:
            return None
        beside = torch.zeros_like(by_frame[:1])
        beside[:, 0] = True
        frame = (self.own[:, 0].long() - self.padding).clamp(0, self.frames)
        return torch.cat([by_frame, beside])[frame]

    def place(self, site: Site) -> Positions | None:
        """Token positions at `site` after every technique that moves them, in list order; None where there are none."""
        positions = self.positions
        for t in self.at(site):
            if positions is not None and t.overrides("positions"):
                positions = t.positions(self.step, site, positions)
        return positions

    def reading(self) -> Positions | None:
        """Token positions where the video reads text: the queries', and none of the text."""
        return None if self.positions is None else replace(self.positions, k=self.positions.k[:0])

    def attend(
        self, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, plain: Attention
    ) -> Tensor:
        """Nests the techniques around the model's own attention."""
        call = plain
        for t in reversed(self.at(site)):
            if t.overrides("attend"):
                call = _around(t, self.step, site, call)
        return call(q, k, v, positions)


def _in_blocks(technique: Technique, block: int) -> bool:
    blocks = technique.block_range
    return blocks is None or blocks[0] <= block <= blocks[1]


def _around(technique: Technique, step: Step, site: Site, inner: Attention) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
        found = technique.attend(step, site, q, k, v, positions, inner.biased(bias, positions))
        return technique.answered("attend", found, (*q.shape[:3], v.shape[3]))

    return Attention(inner.turn, attend)


current_taps: ContextVar[Taps | None] = ContextVar("current_taps", default=None)
