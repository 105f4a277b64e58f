"""Named camera moves as exact per-frame intrinsics and poses.

Conventions (those of `kinema.world.spec`): world z up, camera frame x right, y down, z forward (OpenCV).
"Pan left" and "tilt up" say where the camera turns, so what is seen moves the other way; "orbit left" and
"dolly in" say where the eye goes. Every move is centred: half of it lies before the pose of a still camera.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinema.world.spec import SceneSpec
from kinema.world.vocabulary import CAMERAS

LOOK_AT = (0.0, 0.0, 0.85)  # metres; a bit above the middle of the objects, so that some sky is seen
FOCAL = 1.625  # focal length over frame height: one metre at a distance of 6.5 m fills a quarter of the height
ONSET = 0.12  # part of the clip in which a move gains its speed

PAN = math.radians(22.0)
TILT = math.radians(14.0)
ZOOM = 1.7  # last focal length over first
DOLLY = 0.35  # of the distance
ORBIT = math.radians(55.0)
RISE = 2.0  # metres
LOWEST_EYE = 0.3  # metres above the ground


def progress(num_frames: int) -> Tensor:
    """Part of a move that is done at each frame: (T,) float64 from 0 to 1, quadratic onset, then constant speed."""
    u = torch.linspace(0.0, 1.0, num_frames, dtype=torch.float64)
    done = torch.where(u < ONSET, u.square() / (2 * ONSET), u - ONSET / 2)
    return done / (1 - ONSET / 2)


def look_rotation(yaw: Tensor, pitch: Tensor) -> Tensor:
    """World-to-camera rotations (..., 3, 3) of a level camera.

    Args:
        yaw: radians about z; 0 looks along +y, positive turns to the left. Any shape.
        pitch: radians above the horizon, same shape.
    """
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    right = torch.stack([cy, sy, torch.zeros_like(cy)], -1)
    forward = torch.stack([-sy * cp, cy * cp, sp], -1)
    down = torch.linalg.cross(forward, right)
    return torch.stack([right, down, forward], -2)


def pose(rotation: Tensor, eye: Tensor) -> Tensor:
    """World-to-camera matrices (..., 4, 4) from rotations (..., 3, 3) and eye positions (..., 3) in metres."""
    matrix = torch.zeros(*rotation.shape[:-2], 4, 4, dtype=rotation.dtype, device=rotation.device)
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = -(rotation @ eye[..., None])[..., 0]
    matrix[..., 3, 3] = 1.0
    return matrix


def camera_path(spec: SceneSpec) -> tuple[Tensor, Tensor]:
    """Intrinsics (T, 3, 3) in pixels and world-to-camera poses (T, 4, 4) of the camera of a scene, float32.

    The move is the one named in `spec.camera`, `spec.camera.amount` times its usual size. The point half a metre
    above the origin stays in view for the usual sizes and distances.

    Raises:
        ValueError: when the move is unknown, or the distance, height or amount cannot be used.
    """
    camera, count = spec.camera, spec.num_frames
    if camera.move not in CAMERAS:
        raise ValueError(f"camera move is {camera.move!r}; use one of {', '.join(CAMERAS)}")
    drop = camera.height - LOOK_AT[2]
    if camera.distance <= abs(drop):
        raise ValueError(f"camera distance is {camera.distance}; use more than {abs(drop):g} at this height")
    if not 0 <= camera.amount <= 2:
        raise ValueError(f"camera amount is {camera.amount}; use 0 to 2")
    word, _, side = camera.move.partition(" ")
    sign = -1.0 if side in ("right", "down", "out") else 1.0
    offset = sign * camera.amount * (progress(count) - 0.5)  # (T,) -0.5 .. 0.5 of the move
    zero = torch.zeros(count, dtype=torch.float64)

    azimuth = camera.azimuth - (offset * ORBIT if word == "orbit" else zero)
    height = (camera.height + offset * RISE if word == "rise" else camera.height + zero).clamp_min(LOWEST_EYE)
    away = math.sqrt(camera.distance**2 - drop**2)
    target = torch.tensor(LOOK_AT, dtype=torch.float64)
    eye = torch.stack([azimuth.sin() * away, -azimuth.cos() * away, height], -1)
    if word == "dolly":
        eye = eye + (target - eye) * (offset * DOLLY)[:, None]
    yaw = azimuth + (offset * PAN if word == "pan" else zero)
    pitch = torch.atan2(target[2] - eye[:, 2], (target[:2] - eye[:, :2]).norm(dim=-1))
    pitch = pitch + (offset * TILT if word == "tilt" else zero)
    focal = FOCAL * spec.height * torch.pow(torch.tensor(ZOOM, dtype=torch.float64), offset if word == "zoom" else zero)

    intrinsics = torch.zeros(count, 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = spec.width / 2, spec.height / 2, 1.0
    return intrinsics.float(), pose(look_rotation(yaw, pitch), eye).float()
