"""HunyuanVideo's attention, opened for techniques: video and text tokens in one sequence, the video first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Positions


class HunyuanTapped(TappedProcessor):
    """diffusers' `HunyuanVideoAttnProcessor2_0` with `taps.attend` around the attention.

    Text tokens have no positions: only the video tokens are turned.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: rotary.Table | None = None,
    ) -> tuple[Tensor, Tensor]:
        taps = self.acting()
        if taps is None:
            unseen: tuple[Tensor, Tensor] = self.original(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return unseen
        assert encoder_hidden_states is not None and taps.positions is not None  # there is always text
        video, text, own = hidden_states, encoder_hidden_states, image_rotary_emb
        taps = dataclasses.replace(taps, positions=dataclasses.replace(taps.positions, text=video.shape[1]))
        to_video = (attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k)
        if attn.add_q_proj is None:  # one stream
            streams = [_projected(torch.cat([video, text], dim=1), attn.heads, *to_video)]
        else:
            to_text = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, attn.norm_added_q, attn.norm_added_k)
            streams = [_projected(video, attn.heads, *to_video), _projected(text, attn.heads, *to_text)]
        q, k, v = (torch.cat(parts, dim=1).transpose(1, 2) for parts in zip(*streams, strict=True))  # (B, N, L, D)
        mask, reads = self.mask(attention_mask, q.shape[2]), taps.reads(self.site)

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if positions is None or own is None:
                return q, k
            return _turned(q, positions, "q", taps.own, own), _turned(k, positions, "k", taps.own, own)

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            if reads is not None and taps.owners is not None:
                return self.read_apart(reads, taps.owners, q, k, v, positions, bias).transpose(1, 2)
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, taps.place(self.site), plain)
        out = out.transpose(1, 2).flatten(2, 3).to(q.dtype)
        seen, said = out[:, : video.shape[1]], out[:, video.shape[1] :]
        if getattr(attn, "to_out", None) is not None:
            seen = attn.to_out[1](attn.to_out[0](seen))
        if getattr(attn, "to_add_out", None) is not None:
            said = attn.to_add_out(said)
        return seen, said

    def mask(self, mask: Tensor | None, length: int) -> Tensor | None:
        """What is attended to, for `length` tokens of video and text: as the model gives it."""
        return mask


class Hunyuan15Tapped(HunyuanTapped):
    """The same for `HunyuanVideo15AttnProcessor2_0`, which is given one flag a text token."""

    def mask(self, mask: Tensor | None, length: int) -> Tensor | None:
        """(B, 1, L, L): padding neither sees nor is seen."""
        assert mask is not None
        word = torch.nn.functional.pad(mask, (length - mask.shape[1], 0), value=True).bool()
        return word[:, None, None, :] & word[:, None, :, None]


def _projected(x: Tensor, heads: int, to_q: Any, to_k: Any, to_v: Any, norm_q: Any, norm_k: Any) -> list[Tensor]:
    """Queries, keys and values (B, L, N, D) of one stream."""
    q, k, v = (to(x).unflatten(2, (heads, -1)) for to in (to_q, to_k, to_v))
    return [q if norm_q is None else norm_q(q), k if norm_k is None else norm_k(k), v]


def _turned(u: Tensor, positions: Positions, side: str, default: Tensor | None, own: rotary.Table) -> Tensor:
    """Queries or keys (B, N, L, D) with the rotary positions of the video tokens; side: "q" or "k"."""
    from diffusers.models import embeddings

    rotate: Any = embeddings.apply_rotary_emb  # its annotations are not those of what it takes and gives
    table = rotary.table(positions.q if side == "q" else positions.k, default, own)
    turn = partial(rotate, freqs_cis=table, sequence_dim=1)
    return rotary.on_placed(u.transpose(1, 2), positions, side, turn, dim=1).transpose(1, 2)


def rotary_table(places: Tensor, widths: Sequence[int], theta: float) -> rotary.Table:
    """cos and sin, (L, D) each, of the three-axis rotary embedding for token places (L, 3), in tokens, fractions too.

    Su et al., "RoFormer", 2021, arXiv:2104.09864. widths: channels of a head for frames, rows and columns.
    """
    from diffusers.models import embeddings

    table: Any = embeddings.get_1d_rotary_pos_embed
    axes = [table(width, places[:, axis].float(), theta, use_real=True) for axis, width in enumerate(widths)]
    cos, sin = (torch.cat(part, dim=1) for part in zip(*axes, strict=True))
    return cos, sin


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites with their modules, in the order they are passed, without those of text alone."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    blocks = [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", ())]
    for index, block in enumerate(blocks):
        yield Site(index, "joint", heads, head_dim), block.attn
