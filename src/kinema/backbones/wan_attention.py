"""Wan's attention, opened for techniques."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Positions

THETA = 10000.0  # base of Wan's rotary frequencies


class WanTapped(TappedProcessor):
    """diffusers' `WanAttnProcessor` with `taps.attend` around the attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        taps = self.acting()
        if taps is None:
            unseen: Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            return unseen
        x, context, mask, own = hidden_states, encoder_hidden_states, attention_mask, rotary_emb
        picture = None
        if context is not None:
            if attn.add_k_proj is not None:
                # Wan 2.1 image to video: the tokens of the picture stand before the text, 512 to a prompt.
                picture, context = context[:, : -512 * taps.texts], context[:, -512 * taps.texts :]
            reads = taps.reads(self.site)
            if reads is not None:  # (L, texts): each token of a text as the text itself
                mask = reads.repeat_interleave(context.shape[1] // taps.texts, dim=1)[None, None]
        source = x if context is None else context
        q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)).transpose(1, 2) for u in (q, k, v))  # (B, N, L, D)

        positions = taps.place(self.site) if context is None else taps.reading()

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if positions is None or own is None:
                return q, k
            q, k = q.transpose(1, 2), k.transpose(1, 2)  # (B, L, N, D), as diffusers has it
            q = rotate(q, *_table(positions.q, taps.own, own, q, taps.patch))
            k = rotate(k, *_table(positions.k, taps.own, own, k, taps.patch))
            return q.transpose(1, 2), k.transpose(1, 2)

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).flatten(2, 3).type_as(x)
        if picture is not None:
            k_picture = attn.norm_added_k(attn.add_k_proj(picture)).unflatten(2, (attn.heads, -1))
            v_picture = attn.add_v_proj(picture).unflatten(2, (attn.heads, -1))
            out = out + self.dispatch(q.transpose(1, 2), k_picture, v_picture).flatten(2, 3).type_as(x)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


def _table(
    positions: Tensor,
    default: Tensor | None,
    own: rotary.Table,
    like: Tensor,
    patch: tuple[int, int, int],
) -> rotary.Table:
    """The model's own table for positions nobody changed, else a new one."""
    if positions is default:
        return own
    return rotary.remembered(positions, _Maker(patch, like.shape[-1]))


@dataclass(frozen=True)
class _Maker:
    """Makes tables of token places in latent cells."""

    patch: tuple[int, int, int]
    head_dim: int

    def __call__(self, places: Tensor) -> rotary.Table:
        return rotary_table(places / places.new_tensor(self.patch), self.head_dim)


def rotary_table(places: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin of Wan's three-axis rotary embedding for token places (L, 3), in tokens; fractions are allowed.

    Su et al., "RoFormer", 2021, arXiv:2104.09864; a third of the head for rows and columns each, the rest for frames.
    Returns two tensors (1, L, 1, D) float32, each frequency twice in a row.
    """
    space = 2 * (head_dim // 6)
    axes = (head_dim - 2 * space, space, space)
    angles = []
    for axis, dim in enumerate(axes):
        frequency = THETA ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=places.device) / dim)
        angles.append(torch.outer(places[:, axis].double(), frequency))
    angle = torch.cat(angles, dim=1).repeat_interleave(2, dim=1)[None, :, None]
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of channels of x (B, L, N, D) by the angles of a rotary table (1, L, 1, D)."""
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    out = torch.empty_like(x)
    out[..., 0::2] = a * cos - b * sin
    out[..., 1::2] = a * sin + b * cos
    return out.type_as(x)


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a Wan transformer with their modules; the control blocks of VACE are counted last."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for index, block in enumerate([*transformer.blocks, *getattr(transformer, "vace_blocks", ())]):
        yield Site(index, "self", heads, head_dim), block.attn1
        yield Site(index, "cross", heads, head_dim), block.attn2
