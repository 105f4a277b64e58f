"""Attention of video UNets, opened for techniques: within a frame, over the frames of one place, and to a condition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Part, Positions

# Attentions over frames -> what adds the places of frames to their tokens, in the call in progress.
_moved: Any = WeakTensorKeyDictionary()  # frames of a part -> (places, {projection: what is added for them})
_places: ContextVar[Mapping[Any, Any] | None] = ContextVar("places_of_frames", default=None)


@contextmanager
def placed_by(tables: Mapping[Any, Any]) -> Iterator[None]:
    """While open, attentions of `tables` have positions, which may be moved; see `MovedFrames`."""
    token = _places.set(tables)
    try:
        yield
    finally:
        _places.reset(token)


class UNetTapped(TappedProcessor):
    """diffusers' `AttnProcessor2_0` with `taps.attend` around the attention, as the transformers of a UNet use it.

    B of q, k and v is batch times frames at "spatial" sites, where L are the places of one frame, and batch times
    places at "temporal" ones, where L are the frames. Where a frame stands was added to the tokens before; with a table
    of it, they can be moved.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        x, context, mask = hidden_states, encoder_hidden_states, attention_mask
        taps = self.acting()
        if taps is None:
            unseen: Tensor = self.original(attn, x, context, mask, temb, *args, **kwargs)
            return unseen
        reads = taps.reads_by_frame(self.site) if self.site.kind == "cross" else None
        if reads is not None and context is not None:  # (T, texts): each token of a text as the text itself
            mask = reads.repeat_interleave(context.shape[1] // taps.texts, dim=1)
            mask = mask.repeat(len(x) // len(mask), 1)[:, None, None]
        source = x if context is None else context
        q, k, v = attn.to_q(x), attn.to_k(source), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)).transpose(1, 2) for u in (q, k, v))  # (B, N, L, D)

        moved = MovedFrames.of(attn, x)
        positions = None
        if moved is not None:
            frames = Positions(moved.own, moved.own)
            positions = dataclasses.replace(taps, positions=frames, own=moved.own).place(self.site)

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if moved is None or positions is None:
                return q, k
            return (
                moved(q, attn.to_q, positions.q, positions.q_part),
                moved(k, attn.to_k, positions.k, positions.k_part),
            )

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            if moved is not None and positions is not None:
                v = moved(v, attn.to_v, positions.k, positions.k_part)
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).flatten(2, 3).type_as(x)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


@lru_cache(maxsize=16)
def _own_places(frames: int, device: torch.device) -> Tensor:
    """Frames 0, 1, ... as `Positions` has them, (L, 3)."""
    places = torch.zeros(frames, 3, dtype=torch.long, device=device)
    places[:, 0] = torch.arange(frames, device=device)
    return places


class MovedFrames:
    """What queries, keys and values of frames would be if the frames stood elsewhere.

    A table of sines is added to the tokens before they are projected, and projections are linear, so that
    to(x + new) = to(x + own) + to(new) - to(own), exactly. Other places are their formula.
    """

    def __init__(self, table: Tensor, frames: int) -> None:
        """table: (most frames, C)."""
        self.table = table
        self.own = _own_places(frames, table.device)
        self._projected: dict[Any, Tensor] = {}

    @classmethod
    def of(cls, attn: Any, x: Tensor) -> MovedFrames | None:
        """For an attention of the call in progress to x (B, L, C); None where no table is added to its tokens."""
        found = (_places.get() or {}).get(attn)
        return None if found is None else cls(found.pe[0].to(x), x.shape[1])

    def __call__(self, u: Tensor, to: Any, places: Tensor, part: Part | None) -> Tensor:
        """u (B, N, L, D), which `to` made of the frames of `part`, at other places (L, 3)."""
        if places is self.own:
            return u
        if part is None:
            return u + self._moved(u.shape[1], to, places, self.own[:, 0])
        known = _moved.get(part.index)
        if known is None or known[0] is not places:
            known = _moved[part.index] = places, {}
        if to not in known[1]:
            known[1][to] = self._moved(u.shape[1], to, places, part.within(None))
        added: Tensor = known[1][to]
        return u + added

    def _moved(self, heads: int, to: Any, places: Tensor, own: Tensor) -> Tensor:
        """What is added to what `to` made of the frames `own`, (N, L, D)."""
        moved: Tensor = self._rows(to, places[:, 0]) - self._rows(to, own)
        return moved.reshape(len(moved), heads, -1).transpose(0, 1)

    def _rows(self, to: Any, frames: Tensor) -> Tensor:
        """The projected sines of frames, (L, N D)."""
        first, last = frames.aminmax()
        if frames.is_floating_point() or first < 0 or last >= len(self.table):
            projected: Tensor = to(sines(self.table, frames))
            return projected
        if to not in self._projected:
            self._projected[to] = to(self.table)
        return self._projected[to][frames]


def sines(table: Tensor, frames: Tensor) -> Tensor:
    """The rows of a table (most frames, C) for whole places in it, and its formula for all others, (L, C).

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, section 3.5.
    """
    width = table.shape[1]
    frequency = torch.exp(torch.arange(0, width, 2, device=frames.device) * (-math.log(10000.0) / width))
    angle = torch.outer(frames.float(), frequency)
    waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(table)
    there = frames.long().clamp(0, len(table) - 1)
    return torch.where((there == frames)[:, None], table[there], waves)


class FramePlaces(torch.nn.Module):
    """diffusers' `SinusoidalPositionalEmbedding`, which has its formula behind the end of its table.

    The network was not trained there; it is for clips whose frames are moved to places in the table where attention
    sees them.
    """

    def __init__(self, pe: Tensor) -> None:
        """pe: the table, (1, most frames, C)."""
        super().__init__()
        self.pe: Tensor
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.shape[1]
        if frames <= self.pe.shape[1]:
            return x + self.pe[:, :frames]
        return x + sines(self.pe[0], torch.arange(frames, device=x.device))


def lengthen_tables(unet: Any) -> None:
    """Lets a UNet take clips of more frames than its tables have; all others stay what they are."""
    for layer in _motion_layers(unet):
        layer.pos_embed = FramePlaces(layer.pos_embed.pe)


def frame_tables(unet: Any) -> dict[Any, Any]:
    """The attentions over frames of a UNet -> the module that adds the places of frames to their tokens.

    Those that have one: where a network makes places of frames otherwise, they cannot be moved.
    """
    found: dict[Any, Any] = {}
    for layer in _motion_layers(unet):
        both = (attn for attn in (layer.attn1, layer.attn2) if attn is not None)
        found |= {attn: layer.pos_embed for attn in both if not attn.is_cross_attention}
    return found


def _motion_layers(unet: Any) -> Iterator[Any]:
    """The layers of motion modules that have a table of places."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for motion in getattr(block, "motion_modules", None) or ():
            for layer in motion.transformer_blocks if motion is not None else ():
                if layer.pos_embed is not None:
                    yield layer


def attentions(unet: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a video UNet with their modules, in the order they are passed.

    A block is one place of the UNet that has attention: for AnimateDiff the transformer of the image model and the
    motion module behind it, for Stable Video Diffusion one transformer of both kinds. Blocks are counted from the
    input to the output. Both self-attentions of a motion module are "temporal".
    """
    index, ahead = 0, len(unet.down_blocks) + 1
    for number, block in enumerate((*unet.down_blocks, unet.mid_block, *unet.up_blocks)):
        up = number - ahead if number >= ahead else None
        places = zip_longest(getattr(block, "attentions", None) or (), getattr(block, "motion_modules", None) or ())
        for spatial, motion in places:
            for layer, mixed in zip_longest(*_layers(spatial)):
                yield from _of(layer, index, up, "spatial")
                if mixed is not None:
                    yield from _of(mixed, index, up, "temporal")
            for layer in motion.transformer_blocks if motion is not None else ():
                yield from _of(layer, index, up, "temporal")
            index += 1


def _layers(spatial: Any) -> tuple[Any, Any]:
    """The layers within frames, and those over frames that stand between them."""
    if spatial is None:
        return (), ()
    return spatial.transformer_blocks, getattr(spatial, "temporal_transformer_blocks", ())


def _of(layer: Any, index: int, up: int | None, kind: str) -> Iterator[tuple[Site, Any]]:
    for attn in (layer.attn1, layer.attn2):
        if attn is not None:
            of_this = "cross" if attn.is_cross_attention else kind
            yield Site(index, of_this, attn.heads, attn.inner_dim // attn.heads, up), attn


def passages(unet: Any) -> Iterator[tuple[int, Any]]:
    """What features leave at each block, counted as in `attentions`: the motion module, or the one transformer."""
    index = 0
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        places = zip_longest(getattr(block, "attentions", None) or (), getattr(block, "motion_modules", None) or ())
        for spatial, motion in places:
            yield index, spatial if motion is None else motion
            index += 1
