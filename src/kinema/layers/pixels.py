"""Which frames of a clip a network looks at, how they become its input, and where it runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.core.errors import KinemaError

CHUNK = 16  # frames in one pass, so that memory does not grow with the clip


def device() -> torch.device:
    """The first GPU of kind cuda, else the CPU. Extractors always compute in float32."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def first(frames: np.ndarray, count: int, name: str) -> np.ndarray:
    """The first `count` frames of (T, H, W, 3). Raises: KinemaError when there are fewer; `name` is who asks."""
    _enough(frames, count, name)
    return frames[:count]


def spread(frames: np.ndarray, count: int, name: str) -> np.ndarray:
    """`count` frames of (T, H, W, 3) spread evenly, first and last among them; all of them when T is `count`.

    Raises: KinemaError when there are fewer than `count`; `name` is who asks.
    """
    _enough(frames, count, name)
    found: np.ndarray = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return found


def _enough(frames: np.ndarray, count: int, name: str) -> None:
    if len(frames) < count:
        many = "frame" if len(frames) == 1 else "frames"
        raise KinemaError(f"clip has {len(frames)} {many}; {name} needs {count}")


def by_chunks(frames: np.ndarray, features: Callable[[np.ndarray], Tensor], chunk: int = CHUNK) -> np.ndarray:
    """(T, H, W, 3) -> (T, D) float32: `features` of at most `chunk` frames at a time, without gradients."""
    with torch.inference_mode():
        found = [features(frames[i : i + chunk]).float().cpu() for i in range(0, len(frames), chunk)]
    every: np.ndarray = torch.cat(found).numpy()
    return every


def resized(frames: np.ndarray, size: int, antialias: bool) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, 3, size, size) float32 in 0..255: bilinear, pixel centres aligned, nothing cut off."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    return F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=antialias)


def log_mean(log_odds: Tensor) -> Tensor:
    """(T, K) log odds of each frame -> (K,) of the clip: the logarithm of the mean probability.

    Its softmax is the mean of the softmax of the frames.
    """
    return torch.log_softmax(log_odds, 1).logsumexp(0) - float(np.log(len(log_odds)))
