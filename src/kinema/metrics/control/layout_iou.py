"""Layout IoU: how well the boxes of the clip's objects cover those of its reference."""

from __future__ import annotations

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import library
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.objects import objects
from kinema.metrics.viewing import Viewing, same_length


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap over union (...) of boxes (..., 4) x0, y0, x1, y1; 0 where one is NaN, NaN where both are."""
    least, most = np.maximum(a, b), np.minimum(a, b)
    both = (most[..., 2:] - least[..., :2]).clip(0).prod(-1)
    area = [(box[..., 2:] - box[..., :2]).clip(0).prod(-1) for box in (a, b)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(area[0] + area[1] > 0, both / (area[0] + area[1] - both), 0.0)
    missing = np.isnan(a).any(-1), np.isnan(b).any(-1)
    return np.where(missing[0] & missing[1], np.nan, np.where(missing[0] | missing[1], 0.0, found))


def layout_overlap(boxes: np.ndarray, planned: np.ndarray) -> float | None:
    """Mean IoU of boxes (N, T, 4) and the boxes that they should be (M, T, 4), NaN where not seen; 0..1.

    Each box is paired with one that it should be so that the sum over pairs of the mean over frames (where one of the
    two is seen) is greatest; divided by N or M, whichever is more, so that what is missing or too much counts 0.
    None when there is nothing in either.
    Raises: KinemaError when the numbers of frames differ.
    """
    if boxes.shape[1:] != planned.shape[1:]:
        raise KinemaError(f"boxes are {boxes.shape} and planned {planned.shape}; use (N, T, 4) and (M, T, 4)")
    most = max(len(boxes), len(planned))
    if not most:
        return None
    if not (len(boxes) and len(planned)):
        return 0.0
    overlap = box_iou(boxes[:, None], planned[None])
    counted = ~np.isnan(overlap)
    mean = np.where(counted, overlap, 0).sum(-1) / counted.sum(-1).clip(1)  # (N, M)
    rows, columns = library("scipy.optimize").linear_sum_assignment(-mean)
    return float(mean[rows, columns].sum() / most)


@metric(
    "layout_iou",
    unit="share",
    low=0,
    high=1,
    better="higher",
    source='maximum IoU of "Constrained Graphic Layout Generation via Latent Optimization", 2021, arXiv:2108.00871',
    needs=("reference",),
    sees="offset",
    ignores="flicker",
    extractor="world",
)
def layout_iou(clip: Viewing, extractor: Extractor) -> float | None:
    """How well the boxes of the clip's objects cover those of the reference's, mean over frames and objects; 1 is best.

    Boxes are in shares of the picture, so the two may differ in size, not in length. `layout_overlap` takes planned
    boxes as well. None where neither clip has an object. Departures: the paper pairs boxes of one class and as many on
    both sides; here kinds play no part, a box without another counts 0, and a pair is one for all frames.
    """
    found = []
    for view in (clip, same_length(clip)):
        whole = np.array([view.width, view.height] * 2)
        found.append(np.array([o.boxes / whole for o in objects(view, extractor)]).reshape(-1, len(view), 4))
    return layout_overlap(*found)
