"""Mochi's attention, opened for techniques: video tokens and words in one sequence, the video first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor, picked
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Positions, followed


class MochiTapped(TappedProcessor):
    """diffusers' `MochiAttnProcessor2_0` with `taps.attend` around the attention.

    q, k and v hold all text tokens; inside, those behind the end of each prompt neither see nor are seen. Text tokens
    have no positions: only the video tokens are turned, each head with frequencies of its own.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: rotary.Table | None = None,
    ) -> tuple[Tensor, Tensor]:
        taps = self.acting()
        if taps is None:
            unseen: tuple[Tensor, Tensor] = self.original(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return unseen
        assert taps.positions is not None
        video, text, own = hidden_states, encoder_hidden_states, image_rotary_emb
        taps = dataclasses.replace(taps, positions=dataclasses.replace(taps.positions, text=video.shape[1]))
        reads = taps.reads(self.site)
        words = torch.nn.functional.pad(attention_mask.bool(), (video.shape[1], 0), value=True)  # (B, L)
        streams = [
            (attn.norm_q(_heads(attn.to_q(video), attn)), attn.norm_added_q(_heads(attn.add_q_proj(text), attn))),
            (attn.norm_k(_heads(attn.to_k(video), attn)), attn.norm_added_k(_heads(attn.add_k_proj(text), attn))),
            (_heads(attn.to_v(video), attn), _heads(attn.add_v_proj(text), attn)),
        ]
        q, k, v = (torch.cat(parts, dim=1).transpose(1, 2) for parts in streams)  # (B, N, L, D)

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if positions is None or own is None:
                return q, k
            return _turned(q, positions, "q", taps.own, own), _turned(k, positions, "k", taps.own, own)

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D)
            if reads is not None and taps.owners is not None:
                return self.read_apart(reads, taps.owners, q, k, v, positions, bias).transpose(1, 2)
            out, shape = torch.zeros_like(q), (q.shape[1], k.shape[1])
            for i, real in enumerate(words):
                seeing = followed(real[:, None], shape, positions)[:, 0]
                seen = followed(real[None], shape, positions)[0]
                parts = q[i : i + 1, seeing], k[i : i + 1, seen], v[i : i + 1, seen]
                out[i, seeing] = self.dispatch(*parts, picked(bias, i, seeing, seen))[0]
            return out.transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, taps.place(self.site), plain).transpose(1, 2).flatten(2)
        frames, said = out[:, : video.shape[1]], out[:, video.shape[1] :]
        frames = attn.to_out[1](attn.to_out[0](frames))
        return frames, attn.to_add_out(said) if hasattr(attn, "to_add_out") else said


def _heads(u: Tensor, attn: Any) -> Tensor:
    """(B, L, N D) -> (B, L, N, D)."""
    return u.reshape(*u.shape[:2], attn.heads, -1)


def _turned(u: Tensor, positions: Positions, side: str, default: Tensor | None, own: rotary.Table) -> Tensor:
    """Queries or keys (B, N, L, D) with the rotary positions of the video tokens; side: "q" or "k"."""
    cos, sin = rotary.table(positions.q if side == "q" else positions.k, default, own)
    turn = partial(rotate, cos=cos, sin=sin)
    return rotary.on_placed(u.transpose(1, 2), positions, side, turn, dim=1).transpose(1, 2)


def rotate(u: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of channels of u (B, L, N, D) by a table, (L, N, D / 2) each."""
    a, b = u[..., 0::2].float(), u[..., 1::2].float()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(u.dtype)


def rotary_table(places: Tensor, grid: tuple[int, int], area: float, frequencies: Tensor) -> rotary.Table:
    """cos and sin (L, N, D / 2) for token places (L, 3), in tokens from the corner; fractions are allowed.

    grid: rows and columns of tokens. Frames count from the first, rows and columns from the middle, in steps by which
    a picture of any size covers `area`. frequencies: what the model learned for each axis, (3, N, D / 2), radian.
    """
    rows, columns = grid
    step = (area / (rows * columns)) ** 0.5
    middle = places.new_tensor([0.0, rows / 2 - 0.5, columns / 2 - 0.5], dtype=torch.float32)
    coordinates = (places.float() - middle) * places.new_tensor([1.0, step, step], dtype=torch.float32)
    angle = torch.einsum("la,anf->lnf", coordinates, frequencies.float())
    return angle.cos(), angle.sin()


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a MochiTransformer3DModel with their modules, in the order they are passed."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for index, block in enumerate(transformer.transformer_blocks):
        yield Site(index, "joint", heads, head_dim), block.attn1
