"""Mask IoU: whether the things of a clip cover the same pixels as those of its reference."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.objects import SURE
from kinema.metrics.viewing import Viewing, same_size


def iou(a: np.ndarray, b: np.ndarray) -> float | None:
    """|a and b| / |a or b| of bool arrays of one shape; None when both are empty."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else None


@metric(
    "mask_iou",
    unit="share",
    low=0,
    high=1,
    better="higher",
    source="Jaccard index of the objects' masks; as in the structure checks of ControlNet-like methods, our definition",
    needs=("reference",),
    sees="offset",
    ignores="flicker",
    extractor="world",
)
def mask_iou(clip: Viewing, extractor: Extractor) -> float | None:
    """Pixels that belong to an object in both, over those in either; mean over frames where there is one in either.

    The reference has the same size. None where neither clip ever shows an object.
    """

    def covered(view: Viewing) -> np.ndarray:
        return view.once(("mask", extractor.label), lambda: extractor.mask(view.frames)) > SURE

    pairs = zip(covered(clip), covered(same_size(clip)), strict=True)
    found = [value for pair in pairs if (value := iou(*pair)) is not None]
    return float(np.mean(found)) if found else None
