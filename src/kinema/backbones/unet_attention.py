"""Attention of video UNets, opened for techniques: within a frame, over the frames of one place, and to a condition."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from torch import Tensor

from kinema.backbones.taps import TappedProcessor
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.positions import Positions


class UNetTapped(TappedProcessor):
    """diffusers' `AttnProcessor2_0` with `taps.attend` around the attention, as the transformers of a UNet use it.

    B of q, k and v is batch times frames at "spatial" sites, where L are the places of one frame, and batch times
    places at "temporal" ones, where L are the frames. What stands where was added to the tokens before: no positions.
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

        def turn(q: Tensor, k: Tensor, positions: Positions | None) -> tuple[Tensor, Tensor]:
            return q, k

        def read(q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, bias: Tensor | None) -> Tensor:
            q, k, v = (u.transpose(1, 2) for u in (q, k, v))  # (B, L, N, D), as diffusers has it
            return self.dispatch(q, k, v, self.masked(mask, bias, positions, q, k)).transpose(1, 2)

        plain = Attention.of(turn, read)
        out = taps.attend(self.site, q, k, v, None, plain).transpose(1, 2).flatten(2, 3).type_as(x)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


def attentions(unet: Any) -> Iterator[tuple[Site, Any]]:
    """The attention sites of a video UNet with their modules, in the order they are passed.

    A block is one place of the UNet that has attention: for AnimateDiff the transformer of the image model and the
    motion module behind it, for Stable Video Diffusion one transformer of both kinds. Blocks are counted from the
    input to the output. Both self-attentions of a motion module are "temporal".
    """
    index = 0
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        places = zip_longest(getattr(block, "attentions", None) or (), getattr(block, "motion_modules", None) or ())
        for spatial, motion in places:
            for layer, mixed in zip_longest(*_layers(spatial)):
                yield from _of(layer, index, "spatial")
                if mixed is not None:
                    yield from _of(mixed, index, "temporal")
            for layer in motion.transformer_blocks if motion is not None else ():
                yield from _of(layer, index, "temporal")
            index += 1


def _layers(spatial: Any) -> tuple[Any, Any]:
    """The layers within frames, and those over frames that stand between them."""
    if spatial is None:
        return (), ()
    return spatial.transformer_blocks, getattr(spatial, "temporal_transformer_blocks", ())


def _of(layer: Any, index: int, kind: str) -> Iterator[tuple[Site, Any]]:
    for attn in (layer.attn1, layer.attn2):
        if attn is not None:
            of_this = "cross" if attn.is_cross_attention else kind
            yield Site(index, of_this, attn.heads, attn.inner_dim // attn.heads), attn
