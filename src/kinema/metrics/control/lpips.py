"""LPIPS: how different a clip and its reference look, by what a network sees in them."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_size


@metric(
    "lpips",
    unit="squared distance",
    low=0,
    high=float("inf"),
    better="lower",
    source='"The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, arXiv:1801.03924',
    needs=("reference",),
    sees="noise",
    ignores="mirror",
    extractor="lpips",
)
def lpips(clip: Viewing, extractor: Extractor) -> float:
    """Mean over frames of the learned perceptual distance of a frame and that of the reference of the same size.

    The distance is |F(a) - F(b)|^2 of the features of the extractor `lpips`; its docstring has the formula.
    """
    reference = same_size(clip)
    found = []
    for pair in zip(clip.frames, reference.frames, strict=True):  # one by one: features are larger than frames
        a, b = extractor.frames(np.stack(pair)).astype(np.float64)
        found.append(float(np.square(a - b).sum()))
    return float(np.mean(found))
