"""Depth agreement: whether things stand as near and as far as in the reference."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_size


def aligned(nearness: np.ndarray, true: np.ndarray) -> np.ndarray:
    """s * nearness + t with the s and t of least squares, argmin sum (s * nearness + t - true)^2, over all values.

    Nearness that is the same everywhere keeps s = 0. MiDaS, 2019, arXiv:1907.01341, equation 4.
    """
    x, y = nearness.astype(np.float64), true.astype(np.float64)
    spread = x - x.mean()
    power = np.square(spread).sum()
    scale = (spread * (y - y.mean())).sum() / power if power else 0.0
    found: np.ndarray = scale * spread + y.mean()
    return found


def agreement(nearness: np.ndarray, true: np.ndarray) -> float | None:
    """Correlation r of two maps, -1..1; None where the second is the same everywhere.

    1 - r^2 is the share of its variance that is left when the first is `aligned` to it; r itself is told, since a
    picture whose near and far have changed places would be aligned by a scale below 0 and look perfect.
    """
    spread = true - true.mean(dtype=np.float64)
    power = np.square(spread).sum()
    if not power:
        return None
    other = nearness - nearness.mean(dtype=np.float64)
    both = np.sqrt(power * np.square(other).sum())
    return float(np.clip((other * spread).sum() / both, -1, 1)) if both else 0.0


@metric(
    "depth_agreement",
    unit="correlation",
    low=-1,
    high=1,
    better="higher",
    source='aligned by scale and shift as in "MiDaS", 2019, arXiv:1907.01341; for the aim of "Gen-1", arXiv:2302.03011',
    needs=("reference",),
    sees="offset",
    ignores="flicker",
    extractor="world",
)
def depth_agreement(clip: Viewing, extractor: Extractor) -> float | None:
    """How well the nearness of all pixels goes with that of the reference; 1 when equal up to scale and shift.

    Nearness is 1 / depth as the extractor sees it; the two clips have one size. One scale and one shift for the whole
    clip: depth that pumps from frame to frame counts as an error. None where the reference has no depth at all. Gen-1
    names no number for how well structure is kept; the correlation is our own choice.
    """
    reference = same_size(clip)

    def nearness(view: Viewing) -> np.ndarray:
        return view.once(("depth", extractor.label), lambda: extractor.depth(view.frames))

    return agreement(nearness(clip), nearness(reference))
