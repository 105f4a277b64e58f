"""Attention motion flow: where attention finds each place of a frame again in every other frame.

"Video Motion Transfer with Diffusion Transformers", 2024, arXiv:2412.07776, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def attention_flow(
    q: Tensor, k: Tensor, grid: tuple[int, int, int], temperature: float = 2.0, hard: bool = False
) -> Tensor:
    """Displacements (B, T, T, S, 2), in tokens: rows and columns from place s of frame i to its match in frame j.

    q, k: (B, N, T S, D) after their rotary positions, the tokens of the clip alone; grid: frames, rows and columns of
    tokens, S = rows x columns. Logits are averaged over heads, and the softmax of `temperature` times the logits runs
    over the places of one frame. hard: the best match; otherwise the expected one, through which gradients go.
    One frame's queries are looked at a time, forwards and backwards: T S x S numbers, and not the whole map.
    """
    frames, rows, columns = grid
    axes = torch.arange(rows, device=q.device), torch.arange(columns, device=q.device)
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2).float()  # (S, 2)
    # The mean over heads of q_n k_n / sqrt(D) is one product of all heads' channels, divided by their number.
    scale = 1 / (q.shape[1] * math.sqrt(q.shape[3]))
    q, k = (u.float().transpose(1, 2).reshape(len(u), frames, len(places), -1) for u in (q, k))  # (B, T, S, N D)

    def of_frame(q: Tensor, k: Tensor) -> Tensor:
        logits = scale * torch.einsum("bsd,btrd->btsr", q, k)
        match = places[logits.argmax(dim=-1)] if hard else (temperature * logits).softmax(dim=-1) @ places
        return match - places

    flows = [checkpoint(of_frame, q[:, i], k, use_reentrant=False) for i in range(frames)]
    return torch.stack(flows, dim=1)


def flow_error(flow: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of displacements (B, ..., 2) where those of the reference are not zero.

    0, with no gradient, for a reference in which nothing moves.
    """
    moves = (reference != 0).any(dim=-1, keepdim=True)
    squares = ((flow - reference) ** 2 * moves).sum()
    return squares / (2 * moves.expand_as(flow[..., :1]).sum()).clamp(min=1)
