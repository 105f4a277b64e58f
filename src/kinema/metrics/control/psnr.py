"""Peak signal-to-noise ratio: how close a clip is to its reference, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_size

MOST = 100.0  # dB that equal clips get, so that they have a mean


def decibels(a: Tensor, b: Tensor, span: float = 255.0) -> Tensor:
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


@metric(
    "psnr",
    unit="dB",
    low=0,
    high=MOST,
    better="higher",
    source="Wang et al., 2004, doi:10.1109/TIP.2003.819861, as the baseline",
    needs=("reference",),
    sees="noise",
    ignores="mirror",
)
def psnr(clip: Viewing) -> float:
    """How close the pixels are to those of the reference, from about 10 for other pictures to 100 for equal ones.

    10 log10(255^2 / MSE) over the whole clip and its reference of the same size, at most 100.
    """
    a, b = (torch.from_numpy(v.frames)[None] for v in (clip, same_size(clip)))
    return min(float(decibels(a, b)), MOST)
