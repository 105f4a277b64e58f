"""The conventions of cameras: which moves there are, and the exact poses of a camera that makes them.

Lengths are metres, angles radians; world z is up, a camera's frame is x right, y down, z forward (OpenCV), so a world
point p (3,) lands at pixel K @ (R @ p + t), where R and t are the rows of `world_to_camera`. Pixel centres are at
half integers. "Pan left" and "tilt up" say where the camera turns, so what is seen moves the other way; "orbit left"
and "dolly in" say where the eye goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kinema.core.errors import KinemaError

LOOK_AT = (0.0, 0.0, 0.85)  # metres; a bit above the middle of the objects, so that some sky is seen
FOCAL = 1.625  # focal length over frame height: one metre at a distance of 6.5 m fills a quarter of the height
ONSET = 0.12  # part of a move in which it gains its speed

PAN = math.radians(22.0)
TILT = math.radians(14.0)
ZOOM = 1.7  # last focal length over first
DOLLY = 0.35  # of the distance
ORBIT = math.radians(55.0)
RISE = 2.0  # metres
LOWEST_EYE = 0.3  # metres above the ground

# What a camera can do, with the side that counts up and the one that counts down.
MOVES: dict[str, tuple[str, str]] = {
    "pan": ("left", "right"),
    "tilt": ("up", "down"),
    "zoom": ("in", "out"),
    "dolly": ("in", "out"),
    "orbit": ("left", "right"),
    "rise": ("up", "down"),
}


@dataclass(frozen=True, kw_only=True)
class CameraLeg:
    """One move in a part of a clip: it starts from where the camera is, and what it did stays done."""

    move: str  # a word of `MOVES` and a side, for example "pan left"; without a side the one that counts up
    amount: float = 1.0  # size, times its usual size; below 0 to the other side
    start: float = 0.0  # part of the clip, 0..1
    end: float = 1.0  # part of the clip, later than start

    @property
    def way(self) -> str:
        """A word of `MOVES` and the side that it goes to, for example "pan right" for minus one "pan left"."""
        word, _, side = self.move.partition(" ")
        sides = MOVES[word]
        return f"{word} {sides[(side == sides[1]) != (self.amount < 0)]}"


def in_turn(legs: Iterable[CameraLeg]) -> list[tuple[str, CameraLeg]]:
    """Legs that move at all in the order of time, each with what joins it to the one before in words."""
    moving = sorted((leg for leg in legs if leg.amount), key=lambda leg: leg.start)
    joints = [" and " if leg.start < before.end else ", then " for before, leg in pairwise(moving)]
    return list(zip(["", *joints], moving, strict=False))


def progress(parts: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
    """How much of a move is done when `parts` (T,) of the clip are over: 0 to 1, quadratic onset, then constant."""
    u = ((parts - start) / (end - start)).clamp(0.0, 1.0)
    done = torch.where(u < ONSET, u.square() / (2 * ONSET), u - ONSET / 2)
    return done / (1 - ONSET / 2)


def offset(leg: CameraLeg, parts: Tensor, before: float = 0.0) -> tuple[str, Tensor]:
    """The word of a move and how far it is (T,), times its usual size; `before` of it lie ahead of the first pose."""
    word, _, side = leg.move.partition(" ")
    sign = -1.0 if side == MOVES[word][1] else 1.0
    return word, sign * leg.amount * (progress(parts, leg.start, leg.end) - before)


def moved(
    offsets: Iterable[tuple[str, Tensor]], count: int, *, distance: float, height: float, azimuth: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Focal lengths over the first one (T,) and world-to-camera poses (T, 4, 4) of a camera, float64.

    Args:
        offsets: moves with how far each is at each frame (T,), times its usual size; those of one word add up.
        count: T.
        distance: of the unmoved camera from `LOOK_AT`, metres.
        height: of the unmoved camera above the ground, metres.
        azimuth: of the unmoved camera about z; 0 looks along +y.

    Raises:
        KinemaError: for a dolly that goes (nearly) through the point looked at.
    """
    off = {word: torch.zeros(count, dtype=torch.float64) for word in MOVES}
    for word, more in offsets:
        off[word] = off[word] + more
    nearest = 1 - float(off["dolly"].max()) * DOLLY
    if nearest < 0.1:
        raise KinemaError(
            f"the camera dollies in by {1 - nearest:.2f} of the distance to the point it looks at; use at most 0.9"
        )
    angle = azimuth - off["orbit"] * ORBIT
    level = (height + off["rise"] * RISE).clamp_min(LOWEST_EYE)
    away = math.sqrt(distance**2 - (height - LOOK_AT[2]) ** 2)
    target = torch.tensor(LOOK_AT, dtype=torch.float64)
    eye = torch.stack([angle.sin() * away, -angle.cos() * away, level], -1)
    eye = eye + (target - eye) * (off["dolly"] * DOLLY)[:, None]
    yaw = angle + off["pan"] * PAN
    pitch = torch.atan2(target[2] - eye[:, 2], (target[:2] - eye[:, :2]).norm(dim=-1)) + off["tilt"] * TILT
    zoomed = torch.pow(torch.tensor(ZOOM, dtype=torch.float64), off["zoom"])
    return zoomed, pose(look_rotation(yaw, pitch), eye)


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


def intrinsics_of(focal: Tensor, height: int, width: int) -> Tensor:
    """Intrinsics (T, 3, 3) in pixels from focal lengths (T,) in pixels, seen from the middle of the picture."""
    matrix = torch.zeros(len(focal), 3, 3, dtype=focal.dtype)
    matrix[:, 0, 0] = matrix[:, 1, 1] = focal
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = width / 2, height / 2, 1.0
    return matrix


def relative(world_to_camera: Tensor) -> Tensor:
    """Poses (..., T, 4, 4) in the frame of their first camera, which becomes the identity."""
    rotation, place = world_to_camera[..., :1, :3, :3], world_to_camera[..., :1, :3, 3]
    eye = -(rotation.mT @ place[..., None])[..., 0]
    matrix = world_to_camera.clone()  # W_t W_0^-1, with the inverse of a rigid motion written out
    matrix[..., :3, :3] = world_to_camera[..., :3, :3] @ rotation.mT
    matrix[..., :3, 3] = world_to_camera[..., :3, 3] + (world_to_camera[..., :3, :3] @ eye[..., None])[..., 0]
    return matrix


def is_poses(camera: str) -> bool:
    """Whether what a user says of the camera names a file of poses."""
    return camera.strip().lower().endswith(".json")
