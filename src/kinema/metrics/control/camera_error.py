"""Camera errors: how far the camera of a clip turns and stands from where that of its reference does."""

from __future__ import annotations

import math

import numpy as np

from kinema.metrics.camera import camera_path, pose_errors
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing, same_length


def _errors(clip: Viewing) -> tuple[np.ndarray, np.ndarray] | None:
    """Of rotation (T,) and translation (T,); None where one of the two cameras cannot be told."""
    reference = same_length(clip)
    path, true = camera_path(clip), camera_path(reference)
    return None if path is None or true is None else pose_errors(path.world_to_camera, true.world_to_camera)


@metric(
    "rotation_error",
    unit="radians",
    low=0,
    high=math.pi,
    better="lower",
    source='RotErr of "CameraCtrl", 2024, arXiv:2404.02101, as a mean',
    needs=("reference",),
    sees="turn",
    ignores="pale",
)
def rotation_error(clip: Viewing) -> float | None:
    """Mean over frames of the angle between the clip's camera and the reference's, each relative to its own first one.

    arccos((tr(R R_ref^T) - 1) / 2), in radians; CameraCtrl has the sum over the frames. Both cameras are estimated from
    the pixels by `camera_path`, which tells its own error; given poses are compared by `pose_errors`. None with
    too little to follow.
    """
    found = _errors(clip)
    return None if found is None else float(found[0].mean())


@metric(
    "translation_error",
    unit="heights of the camera",
    low=0,
    high=math.inf,
    better="lower",
    source='TransErr of "CameraCtrl", 2024, arXiv:2404.02101, as a mean and in another unit',
    needs=("reference",),
    sees="sidestep",
    ignores="pale",
)
def translation_error(clip: Viewing) -> float | None:
    """Mean over frames of the distance of the clip's camera from the reference's, each seen from its own first one.

    Departure: the paper gives every path one scale by its own length, which a camera that stays has not; here the unit
    is the height of the first camera above the ground, so a camera that should stay and does has an error near 0.
    Both cameras are estimated from the pixels by `camera_path`, which tells its own error; given poses are compared by
    `pose_errors`, there with a scale of least squares where one is wanted. None with too little to follow.
    """
    found = _errors(clip)
    return None if found is None else float(found[1].mean())
