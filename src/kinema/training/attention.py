"""Attention for training small Wan models on a CPU: the softmax written out.

torch's fused kernel never holds the matrix of weights, which pays when there are thousands of tokens. With the 112
of `mini`, forward and backward took 37% of a step in it; written out, a step is 1.4 times as fast on two CPU cores,
and compiled 2.1 times (`benchmarks/training.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kinema.backbones.wan_attention import attentions, rotate


class PlainProcessor:
    """A diffusers attention processor: softmax(q k^T / sqrt(D)) v, with Wan's norms and rotary positions."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        q, k, v = (u.unflatten(2, (attn.heads, -1)) for u in (q, k, v))
        if rotary_emb is not None:
            q, k = rotate(q, *rotary_emb), rotate(k, *rotary_emb)
        q, k, v = (u.transpose(1, 2).to(v.dtype) for u in (q, k, v))  # (B, N, L, D)
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
        out = torch.matmul(weights, v).transpose(1, 2).flatten(2, 3).type_as(hidden_states)
        projected: Tensor = attn.to_out[1](attn.to_out[0](out))
        return projected


def write_out_softmax(transformer: Any) -> None:
    """Give every attention of a `WanTransformer3DModel` without image tokens the plain processor.

    Raises: ValueError for a model whose cross-attention reads image tokens too.
    """
    for _, attn in attentions(transformer):
        if attn.add_k_proj is not None:
            raise ValueError("plain_attention is for models without image tokens; set it to false")
        attn.set_processor(PlainProcessor())
