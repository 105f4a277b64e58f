"""Wan's attention, opened for techniques through diffusers' attention processors.

The processors are put in only while a run asks for attention and are taken out again when the last such run ends. A
site that nobody acts on in the current step goes through diffusers' own processor, so that it costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kinema.core.attention import Positions, Site, Taps, current_taps
from kinema.core.errors import KinemaError

THETA = 10000.0  # base of Wan's rotary frequencies


class TappedProcessor:
    """Stands in for the processor of one attention while runs want to see it."""

    def __init__(self, site: Site, original: Any, patch: Sequence[int]) -> None:
        self.site = site
        self.original = original
        self.patch = tuple(patch)  # latent cells of a token: frames, rows, columns

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        taps = current_taps.get()
        if taps is None or not taps.at(self.site):
            plain: Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
            return plain
        return self._tapped(taps, attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)

    def _tapped(
        self, taps: Taps, attn: Any, x: Tensor, context: Tensor | None, mask: Tensor | None, rotary: Any
    ) -> Tensor:
        picture = None
        if attn.add_k_proj is not None and context is not None:
            # Wan 2.1 image to video: the tokens of the picture stand before the text, which is always 512 long.
            picture, context = context[:, :-512], context[:, -512:]
        source = x if context is None else context
        q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)).transpose(1, 2) for u in (q, k, v))  # (B, N, L, D)

        default = taps.positions if context is None else None
        positions = taps.place(self.site) if context is None else None

        def plain(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            if positions is not None and rotary is not None:
                q = rotate(q, *self._table(positions.q, default.q if default else None, rotary, q))
                k = rotate(k, *self._table(positions.k, default.k if default else None, rotary, k))
            return self._attend(q, k, v, mask, context is None).transpose(1, 2)

        out = taps.attend(self.site, q, k, v, positions, plain).transpose(1, 2).flatten(2, 3).type_as(x)
        if picture is not None:
            k_picture = attn.norm_added_k(attn.add_k_proj(picture)).unflatten(2, (attn.heads, -1))
            v_picture = attn.add_v_proj(picture).unflatten(2, (attn.heads, -1))
            seen = self._attend(q.transpose(1, 2), k_picture, v_picture, None, False)
            out = out + seen.flatten(2, 3).type_as(x)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_self: bool) -> Tensor:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        return dispatch_attention_fn(
            q,
            k,
            v,
            attn_mask=mask,
            backend=getattr(self.original, "_attention_backend", None),
            parallel_config=getattr(self.original, "_parallel_config", None) if is_self else None,
        )

    def _table(
        self, positions: Tensor, default: Tensor | None, rotary: tuple[Tensor, Tensor], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The model's own table for positions nobody changed, else a new one."""
        if positions is default:
            return rotary
        return rotary_table(positions / positions.new_tensor(self.patch), like.shape[-1])


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


class AttentionDoor:
    """Opens the attentions of a model's transformers to the runs that want them, and closes them after the last."""

    def __init__(self, transformers: Sequence[Any]) -> None:
        self._transformers = tuple(transformers)
        self._open = 0
        self._lock = threading.Lock()
        self._originals: list[tuple[Any, Any]] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        with self._lock:
            if self._open == 0:
                self._install()
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    self._restore()

    def _install(self) -> None:
        found = [(m.config.patch_size, site, attn) for m in self._transformers for site, attn in attentions(m)]
        if any(getattr(attn, "fused_projections", False) for _, _, attn in found):
            raise KinemaError("the attention projections of the model are fused; call unfuse_qkv_projections() first")
        for patch, site, attn in found:
            self._originals.append((attn, attn.processor))
            attn.set_processor(TappedProcessor(site, attn.processor, patch))

    def _restore(self) -> None:
        while self._originals:
            attn, original = self._originals.pop()
            attn.set_processor(original)


def attentions(transformer: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a WanTransformer3DModel with their modules, in the order they are passed."""
    heads, head_dim = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for index, block in enumerate(transformer.blocks):
        yield Site(index, "self", heads, head_dim), block.attn1
        yield Site(index, "cross", heads, head_dim), block.attn2
