"""Flow through a graph of attention, and smoothing of volumes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def soft_min_max(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """The widest way of two edges, max_r min(a_ir, b_rk), soft: (B, n, r) and (B, r, k) -> (B, n, k).

    min(x, y) = -tau log(exp(-x / tau) + exp(-y / tau)) and max over r = tau log(sum exp(. / tau)), hard for tau -> 0.
    """
    narrow = -torch.logaddexp(-a[..., None] / tau, -b[:, None] / tau)  # (B, n, r, k), in units of tau
    return tau * narrow.logsumexp(dim=2)


def smoothed(u: Tensor, sigma: float = 0.5) -> Tensor:
    """Volumes (K, T, rows, columns) after a Gaussian over 3 x 3 x 3 cells, which repeats what is at the borders."""
    weights = torch.tensor([math.exp(-(d**2) / (2 * sigma**2)) for d in (-1, 0, 1)], dtype=u.dtype, device=u.device)
    weights = weights / weights.sum()
    for dim in (1, 2, 3):
        ahead, behind = u.narrow(dim, 0, 1), u.narrow(dim, u.shape[dim] - 1, 1)
        padded = torch.cat([ahead, u, behind], dim=dim)
        u = sum((w * padded.narrow(dim, i, u.shape[dim]) for i, w in enumerate(weights)), torch.zeros_like(u))
    return u
