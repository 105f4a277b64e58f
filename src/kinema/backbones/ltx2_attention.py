"""LTX-2's attentions, opened for techniques: six in a block, of the video, of the sound, and between the two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site, Taps
from kinema.core.errors import KinemaError
from kinema.core.positions import Part, Positions

# The latent frame of the video that is seen while a token of the sound is heard, (L,), in the model call in progress.
_seen: ContextVar[Tensor | None] = ContextVar("ltx2_seen", default=None)


@contextmanager
def sounding_with(frames: Tensor) -> Iterator[None]:
    """While open, the token i of the sound belongs to the latent frame frames[i], for texts that frames read apart."""
    token = _seen.set(frames)
    try:
        yield
    finally:
        _seen.reset(token)


class LTX2Tapped(TappedProcessor):
    """diffusers' `LTX2AudioVideoAttnProcessor` or `LTX2PerturbedAttnProcessor` with `taps.attend` around the attention.

    Tokens of the sound stand in time only, and so do those of the video where the two read each other: as places they
    have their numbers there, and cannot be moved.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        query_rotary_emb: rotary.Table | None = None,
        key_rotary_emb: rotary.Table | None = None,
        perturbation_mask: Tensor | None = None,
        all_perturbed: bool | None = None,
    ) -> Tensor:
        taps = self.acting()
        if taps is None:  # nothing is ever perturbed but by techniques
            tables = query_rotary_emb, key_rotary_emb
            unseen: Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, *tables)
            return unseen
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = attention_mask if attention_mask is None else self._mask(attn, attention_mask, source, taps)
        q, k, v = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)).transpose(1, 2) for u in (q, k, v))  # (B, N, L, D)
        positions = self._positions(q.shape[2], k.shape[2], taps)

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if query_rotary_emb is None:
                return q, k
            at_q, at_k = query_rotary_emb, key_rotary_emb or query_rotary_emb
            if positions is not None and self.site.kind == "self":
                at_q, at_k = (rotary.table(places, taps.own, at_q) for places in (positions.q, positions.k))
            elif positions is not None:
                at_q, at_k = _rows(at_q, positions.q, positions.q_part), _rows(at_k, positions.k, positions.k_part)
            q, k = (u.transpose(1, 2).flatten(2) for u in (q, k))  # (B, L, N D)
            q, k = turned(attn, q, at_q), turned(attn, k, at_k)
            q, k = (u.reshape(*u.shape[:2], attn.heads, -1).transpose(1, 2) for u in (q, k))
            return q, k

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).to(q.dtype)  # (B, L, N, D)
        if attn.to_gate_logits is not None:
            out = out * (2.0 * torch.sigmoid(attn.to_gate_logits(hidden_states))).unsqueeze(-1)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out.flatten(2)))
        return projected

    def _positions(self, queries: int, keys: int, taps: Taps) -> Positions | None:
        if self.site.kind == "self":
            return taps.place(self.site)
        if self.site.kind == "cross":
            return taps.reading()
        q, k = (_numbers(count, taps) for count in (queries, keys))
        return Positions(q, k[:0] if self.site.kind == "sound_cross" else k)

    def _mask(self, attn: Any, mask: Tensor, source: Tensor, taps: Taps) -> Tensor:
        """What is added to the scores, (B, N, 1 or L, P): words that are none, and texts that others read."""
        batch, length = source.shape[:2]
        made: Tensor = attn.prepare_attention_mask(mask, length, batch).view(batch, attn.heads, -1, length)
        seen = _seen.get()
        if self.site.kind == "cross":
            reads = taps.reads(self.site)
        elif (by_frame := taps.reads_by_frame(self.site)) is not None and seen is not None:
            reads = by_frame[seen]
        else:
            reads = None
        if reads is None:
            return made
        return made.masked_fill(~reads.repeat_interleave(length // taps.texts, dim=1), -torch.inf)


def _numbers(count: int, taps: Taps) -> Tensor:
    """Places (L, 3) of tokens that only have a number."""
    device = None if taps.own is None else taps.own.device
    return torch.nn.functional.pad(torch.arange(count, device=device)[:, None], (0, 2))


def _rows(table: rotary.Table, places: Tensor, part: Part | None) -> rotary.Table:
    """The table of a part of tokens that only have a number. Raises: KinemaError for tokens that were moved."""
    rows = torch.arange(len(places), device=places.device) if part is None else part.within(None)
    if not torch.equal(places[:, 0], rows):
        raise KinemaError("tokens of the sound, and those that read it, cannot be moved")
    return table if part is None else (table[0].index_select(-2, rows), table[1].index_select(-2, rows))


def turned(attn: Any, x: Tensor, table: rotary.Table) -> Tensor:
    """Queries or keys (B, L, N D) turned by their places."""
    from diffusers.models.transformers import transformer_ltx2

    rotate: Any = {
        "interleaved": transformer_ltx2.apply_interleaved_rotary_emb,
        "split": transformer_ltx2.apply_split_rotary_emb,
    }[attn.rope_type]
    found: Tensor = rotate(x, table)
    return found


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of an LTX2VideoTransformer3DModel with their modules, in the order they are passed."""
    config = transformer.config
    video = config.num_attention_heads, config.attention_head_dim
    sound = config.audio_num_attention_heads, config.audio_attention_head_dim
    for index, block in enumerate(transformer.transformer_blocks):
        yield Site(index, "self", *video), block.attn1
        yield Site(index, "sound_self", *sound), block.audio_attn1
        yield Site(index, "cross", *video), block.attn2
        yield Site(index, "sound_cross", *sound), block.audio_attn2
        yield Site(index, "sound_to_video", *sound), block.audio_to_video_attn
        yield Site(index, "video_to_sound", *sound), block.video_to_audio_attn
