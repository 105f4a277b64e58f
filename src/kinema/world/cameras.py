"""The cameras of scenes as exact per-frame intrinsics and poses.

Conventions are those of `kinema.core.camera`. The named move of a scene is centred: half of it lies before the pose
of a still camera. Legs start from that pose (or from where the named move is by then).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.camera import FOCAL, LOOK_AT, MOVES, CameraLeg, intrinsics_of, look_rotation, moved, offset, pose
from kinema.world.spec import CameraSpec, SceneSpec
from kinema.world.vocabulary import CAMERAS

__all__ = ["FOCAL", "camera_path", "look_rotation", "path_of", "pose"]


def camera_path(spec: SceneSpec) -> tuple[Tensor, Tensor]:
    """Intrinsics (T, 3, 3) in pixels and world-to-camera poses (T, 4, 4) of the camera of a scene, float32.

    The move is the one named in `spec.camera`, `spec.camera.amount` times its usual size; legs are added to it. The
    point half a metre above the origin stays in view for one move of the usual size at the usual distances.

    Raises:
        ValueError: when a move is unknown, or the distance, height, an amount or a time cannot be used.
    """
    zoomed, poses = path_of(spec.camera, spec.num_frames)
    return intrinsics_of(FOCAL * spec.height * zoomed, spec.height, spec.width).float(), poses.float()


def path_of(camera: CameraSpec, count: int) -> tuple[Tensor, Tensor]:
    """Focal lengths over that of an unzoomed camera (T,) and poses (T, 4, 4) at `count` even times of a clip, float64.

    Raises: ValueError as `camera_path`.
    """
    check(camera)
    parts = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    moves = [offset(leg, parts) for leg in camera.legs]
    if camera.move != "still":
        moves.insert(0, offset(CameraLeg(move=camera.move, amount=camera.amount), parts, before=0.5))
    return moved(moves, count, distance=camera.distance, height=camera.height, azimuth=camera.azimuth)


def check(camera: CameraSpec) -> None:
    if camera.move not in CAMERAS:
        raise ValueError(f"camera move is {camera.move!r}; use one of {', '.join(CAMERAS)}")
    drop = camera.height - LOOK_AT[2]
    if camera.distance <= abs(drop):
        raise ValueError(f"camera distance is {camera.distance}; use more than {abs(drop):g} at this height")
    if not 0 <= camera.amount <= 2:
        raise ValueError(f"camera amount is {camera.amount}; use 0 to 2")
    for leg in camera.legs:
        word, _, side = leg.move.partition(" ")
        if word not in MOVES or side not in ("", *MOVES[word]):
            raise ValueError(f"the move of a camera leg is {leg.move!r}; use one of {', '.join(CAMERAS[1:])}")
        if not -2 <= leg.amount <= 2:
            raise ValueError(f"the amount of a camera leg is {leg.amount}; use -2 to 2")
        if not 0 <= leg.start < leg.end <= 1:
            raise ValueError(f"a camera leg lasts from {leg.start} to {leg.end} of the clip; use 0 <= start < end <= 1")
