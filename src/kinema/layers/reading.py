"""A look at one attention of a model, outside the loop's own calls: what goes into it, and nothing behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.attention import Taps, current_taps
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.backbones.protocol import Conditions
    from kinema.core.attending import Attention
    from kinema.core.attention import Site
    from kinema.core.positions import Positions
    from kinema.core.run import Run
    from kinema.core.technique import Step


@dataclass(frozen=True)
class Seen:
    """What went into an attention, and what turns it."""

    q: Tensor  # (B, N, L, D), before rotary positions where `positions` are given
    k: Tensor
    v: Tensor
    positions: Positions | None
    next: Attention
    clip: slice  # where the clip's tokens stand among them

    @property
    def turned(self) -> tuple[Tensor, Tensor]:
        """q and k after their rotary positions."""
        return self.next.turn(self.q, self.k, self.positions)


class _Enough(Exception):
    """What is behind the attention that is looked at is not computed."""


@dataclass(frozen=True, kw_only=True)
class _Reader(Technique):
    """Notes what goes into the self-attention of some blocks. It lives for one call."""

    blocks: tuple[int, ...]
    clips: dict[int, slice] = field(default_factory=dict)
    found: dict[int, Seen] = field(default_factory=dict)

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint") and site.block in self.blocks

    def positions(self, step: Step, site: Site, positions: Positions) -> Positions:
        self.clips[site.block] = slice(positions.first, positions.first + len(positions.q))
        return positions

    def attend(
        self,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        next: Attention,
    ) -> Tensor:
        self.found[site.block] = Seen(q, k, v, positions, next, self.clips[site.block])
        if len(self.found) == len(self.blocks):
            raise _Enough
        return next(q, k, v, positions)


def read_attention(
    run: Run,
    step: Step,
    x: Tensor,
    blocks: Sequence[int],
    *,
    t: float | None = None,
    prompt: str | None = None,
    techniques: Sequence[Technique] = (),
) -> list[Seen]:
    """What goes into the self-attention (kinds "self" and "joint") of these blocks when the model sees latents x.

    x: (B, C, T, H, W), at the level of `step` or at `t`. The model reads the request's prompt, or `prompt`, alone; of
    the run's techniques only those named look into the call, before the notes are taken. Gradients go through where
    they are enabled.
    """
    backbone, conditions = run.backbone, _aside(run, prompt, len(x))
    reader = _Reader(blocks=tuple(blocks))
    taps = Taps(replace(step, branch="cond"), [*techniques, reader])
    with backbone.tapped(True):
        token = current_taps.set(taps)
        try:
            backbone.velocity(x, step.told if t is None else t, conditions)
        except _Enough:
            pass
        finally:
            current_taps.reset(token)
    return [reader.found[block] for block in blocks]


def _aside(run: Run, prompt: str | None, batch: int) -> Conditions:
    """The conditions of a run for a call whose answer nobody takes."""
    conditions = replace(run.conditions, extra=dict(run.conditions.extra))
    if prompt is not None:
        conditions.texts = {False: run.backbone.encode_texts([prompt] * batch, run.conditions)}
    if conditions.companion is not None:
        conditions.companion = replace(conditions.companion, answers=[], _step={}, _last={})
    return conditions


def self_attentions(run: Run) -> list[int]:
    """The blocks of a model that have self-attention over the whole clip, alone or with the text, in their order."""
    return sorted({site.block for site in run.backbone.sites if site.kind in ("self", "joint")})


def clip_tokens(positions: Positions, side: str) -> tuple[Tensor, Tensor]:
    """Which of the queries or keys that are passed have a place, and which token of their call each of them is.

    side: "q" or "k". Returns two tensors (n,). Tokens are counted without text, those beside the clip behind it.
    """
    placed = positions.placed_queries if side == "q" else positions.placed_keys
    part = positions.q_part if side == "q" else positions.k_part
    whole = torch.arange(len(placed), device=placed.device)
    return placed, whole if part is None else part.within(None)[placed] - positions.first
