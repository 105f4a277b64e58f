"""Peak signal-to-noise ratio: how close pictures are, pixel by pixel. dB; higher is closer; infinite when equal."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor, span: float = 255.0) -> Tensor:
    """10 log10(span^2 / MSE) for each of B pictures or clips (B, ...), the mean over everything but B; (B,), dB.

    span: the greatest value less the least, 255 for uint8 and 2 for -1..1.
    Raises: ValueError when the shapes differ, or when uint8 is compared with floats or measured by another span.
    """
    bytes_ = (a.dtype == torch.uint8, b.dtype == torch.uint8)
    if a.shape != b.shape or len(set(bytes_)) > 1 or (bytes_[0] and span != 255):
        raise ValueError(
            f"{tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype} with span {span:g}; "
            "use two of one shape, both uint8 with span 255 or both floats"
        )
    kind = torch.float64 if bytes_[0] else torch.float32
    error = (a.to(kind) - b.to(kind)).square().flatten(1).mean(1)
    return 10 * torch.log10(span**2 / error)
