"""The formula that VBench's subject and background consistency share."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.features import features
from kinema.metrics.viewing import Viewing


def consistency(features: np.ndarray) -> float:
    """Mean over frames i > 0 of (max(0, cos(f_i-1, f_i)) + max(0, cos(f_0, f_i))) / 2, for features (T, D).

    Two vectors of length 0 count as equal, one of them as unlike any other.
    """
    x = features.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    none = length[:, 0] == 0
    before = np.where(none[1:] & none[:-1], 1.0, (unit[1:] * unit[:-1]).sum(1))
    first = np.where(none[1:] & none[0], 1.0, unit[1:] @ unit[0])
    return float(np.clip(np.stack([before, first]), 0, 1).mean())


def of_clip(clip: Viewing, extractor: Extractor) -> float | None:
    """Of the extractor's features of the frames; None for a single frame."""
    if len(clip) < 2:
        return None
    return consistency(features(clip, extractor))
