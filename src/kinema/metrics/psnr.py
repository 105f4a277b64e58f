"""Peak signal-to-noise ratio: how close pictures are, pixel by pixel. dB; higher is closer; infinite when equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor) -> list[float]:
    """10 log10(255^2 / MSE) for each of B pictures or clips (B, ...) uint8, the mean over everything but B.

    Raises: ValueError when the two are not uint8 of the same shape.
    """
    if a.shape != b.shape or a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise ValueError(f"{tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}; use uint8 of the same shape")
    errors = (a.double() - b.double()).square().flatten(1).mean(1)
    return [10 * math.log10(255**2 / error) if error else math.inf for error in errors.tolist()]
