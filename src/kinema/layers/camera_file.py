"""Camera paths from JSON files.

{"world_to_camera": [[4x4], ...],      or "camera_to_world"; metres, x right, y down, z forward (OpenCV)
 "fps": 24,                            of the poses; without it they are spread evenly over the video
 "intrinsics": [[fx, fy, cx, cy], ...], "height": 720, "width": 1280}   or 3x3 matrices; one for all poses will do
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.core.camera import FOCAL, intrinsics_of, pose, relative
from kinema.core.errors import KinemaError
from kinema.files import reason
from kinema.layers.camera_path import CameraPath

LARGEST = 16_000_000  # bytes of a file
MOST = 10_000  # poses
POSES, KNOWN = ("world_to_camera", "camera_to_world"), ("intrinsics", "height", "width", "fps")
OFF = 1e-3  # how far a rotation matrix may be from one


def read_poses(name: str, num_frames: int, height: int, width: int, fps: float) -> CameraPath:
    """The camera path of a file for a clip of `num_frames` frames of height x width pixels, `fps` a second.

    Poses are made relative to the first. Between them rotations are turned evenly (slerp), centres and intrinsics go
    straight. The pictures that intrinsics were for are scaled to cover the frames, and cut alike on both sides; without
    intrinsics the focal length is that of the world's cameras.
    Raises: KinemaError, one sentence that begins with the file's name.
    """
    try:
        data = load(Path(name))
        poses = matrices(data)
        times = times_of(data, len(poses), num_frames, fps)
        return CameraPath(lenses(data, len(poses), times, height, width).float(), between(poses, times).float())
    except KinemaError as error:
        raise KinemaError(f"{name}: {error}") from None


def load(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST:
            raise KinemaError(f"it is no file, or one of more than {LARGEST // 1_000_000} MB")
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KinemaError(f"the camera's file cannot be read, {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, KinemaError):
            raise
        raise KinemaError('it is no JSON; write {"world_to_camera": [[4x4], ...]}') from None
    named = [key for key in POSES if isinstance(data, dict) and key in data]
    if len(named) != 1:
        raise KinemaError("give world_to_camera or camera_to_world, one of the two, as a list of 4x4 matrices")
    unknown = sorted(set(data) - {*POSES, *KNOWN})
    if unknown:
        raise KinemaError(f"there is no {unknown[0]!r} in a camera's file; use {', '.join((*POSES, *KNOWN))}")
    return data


def numbers(value: Any, what: str) -> Tensor:
    """Finite numbers in even nested lists, as float64."""
    try:
        tensor = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise KinemaError(f"{what} is no even list of numbers") from None
    if not tensor.isfinite().all():
        raise KinemaError(f"{what} holds numbers that are not finite")
    return tensor


def matrices(data: dict[str, Any]) -> Tensor:
    """World-to-camera poses (N, 4, 4) in the frame of the first."""
    (key,) = (key for key in POSES if key in data)
    if isinstance(data[key], list) and len(data[key]) > MOST:
        raise KinemaError(f"{key} holds {len(data[key])} poses; use at most {MOST}")
    given = numbers(data[key], key)
    if given.ndim != 3 or given.shape[1:] != (4, 4) or not len(given):
        raise KinemaError(f"{key} has the shape {tuple(given.shape)}; give (N, 4, 4), a 4x4 matrix for each pose")
    rotation = given[:, :3, :3]
    wrong = (rotation @ rotation.mT - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2)) > OFF
    wrong |= (torch.linalg.det(rotation) < 0) | (given[:, 3] - given.new_tensor([0, 0, 0, 1])).abs().amax(1).gt(OFF)
    if wrong.any():
        raise KinemaError(
            f"pose {int(wrong.nonzero()[0])} of {key} is no rotation and place; "
            "give [[R, t], [0, 0, 0, 1]] with R a rotation matrix, without mirroring or scale"
        )
    u, _, v = torch.linalg.svd(rotation)
    given[:, :3, :3] = u @ v  # the nearest rotation: rounded numbers leave it a little
    if key == "camera_to_world":
        given = pose(given[:, :3, :3].mT, given[:, :3, 3])
    return relative(given)


def times_of(data: dict[str, Any], count: int, num_frames: int, fps: float) -> Tensor:
    """Where the frames of the clip lie among the poses, (T,) in poses from 0 to count - 1."""
    if data.get("fps") is None:
        return torch.linspace(0.0, count - 1, num_frames, dtype=torch.float64)
    rate = positive(data, "fps")
    times = torch.arange(num_frames, dtype=torch.float64) * (rate / fps)
    if times[-1] > count + 1e-6:
        raise KinemaError(
            f"the poses last {count / rate:g}s and the video {num_frames / fps:g}s; "
            "give more of them, or leave fps out to spread them over the video"
        )
    return times.clamp_max(count - 1)


def positive(data: dict[str, Any], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise KinemaError(f"{key} is {value!r}; give a number above 0")
    return float(value)


def lenses(data: dict[str, Any], count: int, times: Tensor, height: int, width: int) -> Tensor:
    """Intrinsics (T, 3, 3) in pixels of the clip's frames."""
    if data.get("intrinsics") is None:
        return intrinsics_of(torch.full((len(times),), FOCAL * height, dtype=torch.float64), height, width)
    k = numbers(data["intrinsics"], "intrinsics")
    if k.shape[-1:] == (4,) and k.ndim <= 2:
        fx, fy, cx, cy = k.unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        k = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], -1).reshape(*k.shape[:-1], 3, 3)
    k = k[None] if k.ndim == 2 else k
    if k.ndim != 3 or k.shape[1:] != (3, 3) or len(k) not in (1, count):
        raise KinemaError(f"intrinsics are no [fx, fy, cx, cy] or 3x3 matrix, one for all or for each of {count} poses")
    if (k[:, (0, 1), (0, 1)] <= 0).any() or (k[:, (1, 2, 2), (0, 0, 1)] != 0).any() or (k[:, 2, 2] != 1).any():
        raise KinemaError("intrinsics need focal lengths above 0 and the form [[fx, s, cx], [0, fy, cy], [0, 0, 1]]")
    was = torch.tensor([positive(data, "width"), positive(data, "height")], dtype=torch.float64)
    now = torch.tensor([width, height], dtype=torch.float64)
    scale = float((now / was).max())
    k = k.expand(count, 3, 3).clone()
    k[:, :2, 2] = (k[:, :2, 2] - was / 2) * scale + now / 2
    k[:, :2, :2] *= scale
    before, share = neighbours(times, count)
    return torch.lerp(k[before], k[(before + 1).clamp_max(count - 1)], share[:, None, None])


def neighbours(times: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The pose before each time (T,), and how far it is on the way to the next one (T,)."""
    before = times.floor().long().clamp(0, max(count - 2, 0))
    return before, times - before


def between(poses: Tensor, times: Tensor) -> Tensor:
    """World-to-camera poses (T, 4, 4) at times among poses (N, 4, 4)."""
    before, share = neighbours(times, len(poses))
    after = (before + 1).clamp_max(len(poses) - 1)
    first, last = poses[before, :3, :3], poses[after, :3, :3]
    turn = last @ first.mT
    # log of a rotation: its angle a times its axis, which stands in (R - R^T) / 2 as sin(a) times the axis
    skew = (turn - turn.mT) / 2
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1).norm(dim=-1)
    angle = torch.atan2(sine, (turn.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2)
    if (angle > math.pi - 0.01).any():
        i = int(before[int(angle.argmax())])
        raise KinemaError(f"poses {i} and {i + 1} are half a turn apart; give poses between them")
    grown = torch.where(sine > 1e-9, angle / sine.clamp_min(1e-9), 1.0)
    rotation = torch.linalg.matrix_exp(skew * (grown * share)[:, None, None]) @ first
    centres = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])
    centre = torch.lerp(centres[before], centres[after], share[:, None, None])
    return pose(rotation, centre[..., 0])
