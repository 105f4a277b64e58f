"""LTX-Video's attention, opened for techniques."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Positions


class LTXTapped(TappedProcessor):
    """diffusers' `LTXVideoAttnProcessor` with `taps.attend` around the attention.

    The rotary table covers all heads at once, so that each head turns with frequencies of its own.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: rotary.Table | None = None,
    ) -> Tensor:
        taps = self.acting()
        if taps is None:
            unseen: Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
            return unseen
        from diffusers.models.transformers import transformer_ltx

        own, rotate = image_rotary_emb, cast(Any, transformer_ltx.apply_rotary_emb)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = attention_mask
        if mask is not None:
            batch, length = source.shape[:2]
            mask = attn.prepare_attention_mask(mask, length, batch).unflatten(0, (batch, attn.heads))
            reads = taps.reads(self.site)
            if reads is not None:  # (L, texts): each token of a text as the text itself
                mask = mask.masked_fill(~reads.repeat_interleave(length // taps.texts, dim=1), -torch.inf)
        q, k, v = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)).transpose(1, 2) for u in (q, k, v))  # (B, N, L, D)

        positions = taps.place(self.site) if encoder_hidden_states is None else taps.reading()

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if positions is None or own is None:
                return q, k
            q, k = (u.transpose(1, 2).flatten(2) for u in (q, k))  # (B, L, N D)
            q = rotate(q, rotary.table(positions.q, taps.own, own))
            k = rotate(k, rotary.table(positions.k, taps.own, own))
            q, k = (u.reshape(*u.shape[:2], attn.heads, -1).transpose(1, 2) for u in (q, k))
            return q, k

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).flatten(2).to(q.dtype)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of an LTXVideoTransformer3DModel with their modules, in the order they are passed."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for index, block in enumerate(transformer.transformer_blocks):
        yield Site(index, "self", heads, head_dim), block.attn1
        yield Site(index, "cross", heads, head_dim), block.attn2
