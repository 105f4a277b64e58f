"""CogVideoX's attention, opened for techniques: text and video tokens in one sequence, the text first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import rotary
from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions


class CogVideoXTapped(TappedProcessor):
    """diffusers' `CogVideoXAttnProcessor2_0` with `taps.attend` around the attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: rotary.Table | None = None,
    ) -> tuple[Tensor, Tensor]:
        taps = self.acting()
        if taps is None:
            unseen: tuple[Tensor, Tensor] = self.original(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
            return unseen
        assert attention_mask is None and taps.positions is not None  # the family never masks
        words, own = encoder_hidden_states.shape[1], image_rotary_emb
        taps = dataclasses.replace(taps, positions=dataclasses.replace(taps.positions, first=words))
        positions, reads = taps.place(self.site), taps.reads(self.site)
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        q, k, v = (
            to(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2) for to in (attn.to_q, attn.to_k, attn.to_v)
        )
        q, k = attn.norm_q(q), attn.norm_k(k)  # (B, N, L, D)

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            if positions is None:
                return q, k
            return _turned(q, positions, "q", taps.own, own), _turned(k, positions, "k", taps.own, own)

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            if reads is not None and taps.owners is not None:
                q, k, v = (u.transpose(1, 2) for u in (q, k, v))
                return self.read_apart(reads, taps.owners, q, k, v, positions, bias, text_first=True).transpose(1, 2)
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).flatten(2, 3)
        out = attn.to_out[1](attn.to_out[0](out))
        return out[:, words:], out[:, :words]


def _turned(u: Tensor, positions: Positions, side: str, default: Tensor | None, own: rotary.Table | None) -> Tensor:
    """Queries or keys (B, N, L, D) with the rotary positions of the video tokens; side: "q" or "k"."""
    from diffusers.models.embeddings import apply_rotary_emb

    places, part = (positions.q, positions.q_part) if side == "q" else (positions.k, positions.k_part)
    if own is None:
        if part is not None and default is not None:
            default = default[part.within(None)[part.placed] - positions.first]
        if places is not default and (default is None or not torch.equal(places, default)):
            raise KinemaError("this model adds positions to its tokens before attention; they cannot be moved in it")
        return u
    rotate: Any = apply_rotary_emb  # its annotations are narrower than what it takes
    turn = partial(rotate, freqs_cis=rotary.table(places, default, own))
    return rotary.on_placed(u, positions, side, turn, dim=2)


def rotary_maker(
    config: Any, grid: tuple[int, int], patch: tuple[int, int, int]
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """How this model makes its rotary table, for token places (L, 3) in latent cells, fractions allowed.

    Su et al., "RoFormer", 2021, arXiv:2104.09864; a quarter of the head for frames, the rest for rows and columns.
    config: of the transformer. grid: rows and columns of tokens. CogVideoX 1.0 stretches the grid over the size that
    the model was trained for, 1.5 counts tokens from 0.
    """
    from diffusers.models.embeddings import get_1d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    region: Any = get_resize_crop_region_for_grid
    waves: Any = get_1d_rotary_pos_embed
    starts, steps = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    if config.patch_size_t is None:
        width, height = config.sample_width // config.patch_size, config.sample_height // config.patch_size
        start, stop = region(grid, width, height)
        for axis, (a, b, n) in enumerate(zip(start, stop, grid, strict=True), start=1):
            last = b * (n - 1) / n  # the place of the last of n tokens
            starts[axis], steps[axis] = a, (last - a) / (n - 1) if n > 1 else b - a
    dim = config.attention_head_dim
    widths = (dim // 4, dim // 8 * 3, dim // 8 * 3)

    def maker(places: Tensor) -> tuple[Tensor, Tensor]:
        axes = []
        for axis, width in enumerate(widths):
            place = starts[axis] + steps[axis] * places[:, axis].float() / patch[axis]
            axes.append(waves(width, place, use_real=True))
        cos, sin = (torch.cat(part, dim=1) for part in zip(*axes, strict=True))
        return cos, sin

    return maker


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a CogVideoXTransformer3DModel with their modules, in the order they are passed."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for index, block in enumerate(transformer.transformer_blocks):
        yield Site(index, "joint", heads, head_dim), block.attn1
