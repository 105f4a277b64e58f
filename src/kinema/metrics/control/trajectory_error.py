"""Trajectory error: how far the objects of a clip are from where they should be."""

from __future__ import annotations

import numpy as np

from kinema.core.errors import KinemaError
from kinema.core.optional import library
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.objects import objects
from kinema.metrics.viewing import Viewing, same_length

LOST = 1.0  # distance, shares of the picture, that an object counts which is not there at all


def centre_distance(centres: np.ndarray, planned: np.ndarray) -> float | None:
    """Mean distance of centres (N, T, 2) from where they should be (M, T, 2), NaN where not seen; in their units.

    Each that there should be is paired with another centre so that the sum of mean distances over the frames where
    both are seen is least; one that finds none, or no frame in common, counts `LOST`. None when M is 0.
    Raises: KinemaError when the numbers of frames differ.
    """
    if centres.shape[1:] != planned.shape[1:]:
        raise KinemaError(f"centres are {centres.shape} and planned {planned.shape}; use (N, T, 2) and (M, T, 2)")
    if not len(planned):
        return None
    distance = np.linalg.norm(centres[:, None] - planned[None], axis=-1)
    counted = ~np.isnan(distance)
    mean = np.where(counted.any(-1), np.where(counted, distance, 0).sum(-1) / counted.sum(-1).clip(1), LOST)
    rows, columns = library("scipy.optimize").linear_sum_assignment(mean)
    return float((mean[rows, columns].sum() + LOST * (len(planned) - len(rows))) / len(planned))


@metric(
    "trajectory_error",
    unit="share of the picture",
    low=0,
    high=float(np.sqrt(2)),
    better="lower",
    source='ObjMC of "MotionCtrl", 2023, arXiv:2312.03641, in shares of the picture instead of pixels',
    needs=("reference",),
    sees="offset",
    ignores="flicker",
    extractor="world",
)
def trajectory_error(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean distance of the centre of each object from that of its like in the reference.

    Over the frames in which both are seen. x is in widths and y in heights, so the two clips may differ in size, not in
    length. An object of the reference that the clip lacks counts 1. None where the reference has no object.
    """
    found = []
    for view in (clip, same_length(clip)):
        whole = np.array([view.width, view.height])
        found.append(np.array([o.centre / whole for o in objects(view, extractor)]).reshape(-1, len(view), 2))
    return centre_distance(*found)
