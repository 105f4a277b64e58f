"""Where the camera of a clip stands in each frame, from the points that can be followed over the ground.

The usual way, an essential matrix for each pair of frames, breaks down where all that is seen lies in one plane, where
the camera only turns, and where the focal length changes: in most clips of the world, and in many others. So the scene
is taken for what it mostly is, a level ground with a far background: a point at (x, y) of a frame lies where its line
of sight meets the ground, or endlessly far away above the horizon. Frame after frame the camera is then found that
sees the points followed so far where they are; new points are put on the ground from there. What stands on the ground
or moves does not fit, and is outvoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kinema.metrics.point_tracks import point_tracks
from kinema.metrics.viewing import Viewing
from kinema.world.cameras import FOCAL

TILTS = tuple(math.radians(degrees) for degrees in (3, 9, 15, 22))  # of the first camera below the horizon, tried
NOISE = 0.35  # pixels that a point may be off by; beyond, it counts less and less (Cauchy); at 128 rows, else in ratio
TURN, MOVE, ZOOM = (
    math.radians(5),
    0.05,
    0.015,
)  # usual change a frame: radians, heights of the camera, log focal length
LEAST = 8  # points that have to be seen again in a frame; with fewer the camera is taken to stay as it was
ROUNDS = 15  # of the solver for each frame
SETTLED = 1e-4  # radians, heights of the camera and log focal length: below, the solver stops
TRUSTED = 0.25  # of the sightings have to fit their camera, or nothing is said about it


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Cameras of T frames, in the frame of the first: x right, y down, z forward, as everywhere in kinema."""

    world_to_camera: np.ndarray  # (T, 4, 4) float64; lengths in heights of the first camera above the ground
    focal: np.ndarray  # (T,) pixels
    tilt: float  # of the first camera below the horizon, radians
    support: float  # share of sightings that are within three times `NOISE` of where they should be


@dataclass(frozen=True, eq=False)
class _Camera:
    """One frame's camera: what is at X is seen at focal * (R X + T), divided by its last part."""

    turn: np.ndarray  # (3, 3) R
    shift: np.ndarray  # (3,) T
    focal: float

    def sight(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Homogeneous points (P, 4) -> turned (P, 3), in the camera's frame (P, 3), pixels from the centre (P, 2)."""
        turned = points[:, :3] @ self.turn.T
        seen = turned + points[:, 3:] * self.shift
        return turned, seen, self.focal * seen[:, :2] / np.maximum(seen[:, 2:], 1e-2)

    def ground(self, pixels: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Pixels (P, 2) from the centre -> homogeneous points (P, 4) on the plane normal . X = 1, or endlessly far."""
        ray = np.concatenate([pixels / self.focal, np.ones((len(pixels), 1))], 1) @ self.turn
        eye = -self.turn.T @ self.shift
        near = np.maximum(ray @ normal, 0) / max(1 - normal @ eye, 1e-2)  # 1 / (length of the ray to the ground)
        return np.concatenate([near[:, None] * eye + ray, near[:, None]], 1)


def camera_path(clip: Viewing, focal: float | None = None, tilt: float | None = None) -> CameraPath | None:
    """The camera of a clip; None where too little can be followed, or where what can be does not fit a camera.

    Args:
        clip: of T frames, H rows.
        focal: focal length in the first frame, pixels; None takes 1.625 H, that of the world's unzoomed camera.
        tilt: of the first camera below the horizon, radians; None tries those of `TILTS`. The camera has no roll then.

    How far to trust it, measured on 48 rendered clips with objects of the first curriculum (25 frames of 128x128, true
    focal length of the first frame): mean error of the rotation in degrees and of the camera's place in metres, and in
    brackets how much the camera truly turned and moved. Still 0.04, 0.01 (0, 0); pan 0.9, 0.14 (10, 0); tilt 0.3, 0.13
    (7, 0); zoom 1.6, 0.4 (0, 0); dolly 0.4, 0.3 (0, 1.1); rise 3.9, 0.5 (9, 1.0); orbit 2.8, 0.5 (26, 3.0). One clip
    had no answer; a single one may be off three times as far as the mean. Smaller differences say nothing, nor does it
    say 0 for a camera that only turns.
    """
    return clip.once(("camera_path", focal, tilt), lambda: _best(clip, focal or FOCAL * clip.height, tilt))


def _best(clip: Viewing, focal: float, tilt: float | None) -> CameraPath | None:
    points, seen = point_tracks(clip)
    lasting = seen.sum(1) >= 3
    pixels = points[lasting].astype(np.float64) - np.array([clip.width, clip.height]) / 2
    if (seen[lasting][:, :-1] & seen[lasting][:, 1:]).sum(0).max(initial=0) < LEAST:
        return None
    noise = NOISE * clip.height / 128
    tried = [_followed(pixels, focal, angle, noise) for angle in ((tilt,) if tilt is not None else TILTS)]
    path, _ = min(tried, key=lambda one: one[1])
    return path if path.support >= TRUSTED else None


def _followed(pixels: np.ndarray, focal: float, tilt: float, noise: float) -> tuple[CameraPath, float]:
    """The path for tracks (Q, T, 2) from the centre, and how badly it fits: the negative log likelihood."""
    normal = np.array([0, math.cos(tilt), math.sin(tilt)])
    seen = ~np.isnan(pixels[..., 0])
    cameras = [_Camera(np.eye(3), np.zeros(3), focal)]
    points = np.full((len(pixels), 4), np.nan)
    known = seen[:, 0].copy()
    points[known] = cameras[0].ground(pixels[known, 0], normal)
    misfit, fits, sightings = 0.0, 0, 0
    for t in range(1, pixels.shape[1]):
        here = seen[:, t] & known
        camera = cameras[-1]
        if here.sum() >= LEAST:
            camera, off, change = _resected(points[here], pixels[here, t], camera, noise)
            misfit += float(np.log1p((off / noise) ** 2).sum()) + change
            fits, sightings = fits + int((off < 3 * noise).sum()), sightings + len(off)
        cameras.append(camera)
        new = seen[:, t] & ~known
        points[new] = camera.ground(pixels[new, t], normal)
        known |= new
    poses = np.tile(np.eye(4), (len(cameras), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = [c.turn for c in cameras], [c.shift for c in cameras]
    return CameraPath(poses, np.array([c.focal for c in cameras]), tilt, fits / max(sightings, 1)), misfit


def _resected(points: np.ndarray, pixels: np.ndarray, last: _Camera, noise: float) -> tuple[_Camera, np.ndarray, float]:
    """The camera that sees points (P, 4) at pixels (P, 2), near to that of the frame before.

    Gauss-Newton over 3 angles, 3 lengths and the log of the focal length on sum log(1 + |off|^2 / noise^2) + the
    change since the last camera in units of `TURN`, `MOVE` and `ZOOM`, squared. Starts with a wider noise.
    Returns the camera, how far each point is off (P,) in pixels, and the term of the change.
    """
    stiff = np.array([1 / TURN**2] * 3 + [1 / MOVE**2] * 3 + [1 / ZOOM**2])
    camera, jacobian = last, np.zeros((len(points), 2, 7))
    for step in range(ROUNDS):
        turned, seen, place = camera.sight(points)
        off = place - pixels
        wide = noise * max(1, 6 - 2 * step)
        weight = 1 / (noise**2 + np.square(off).sum(1) * (noise / wide) ** 2)
        bend = np.zeros((len(points), 2, 3))  # d place / d seen
        bend[:, 0, 0] = bend[:, 1, 1] = camera.focal / np.maximum(seen[:, 2], 1e-2)
        bend[:, :, 2] = -place / np.maximum(seen[:, 2:], 1e-2)
        jacobian[:, :, :3] = -bend @ _cross(turned)
        jacobian[:, :, 3:6] = bend * points[:, 3, None, None]
        jacobian[:, :, 6] = place
        change = _change(last, camera)
        flat, heavy = jacobian.reshape(-1, 7), np.repeat(weight, 2)
        normal = flat.T @ (heavy[:, None] * flat) + np.diag(stiff)
        way = -np.linalg.solve(normal, flat.T @ (heavy * off.ravel()) + stiff * change)
        camera = _Camera(
            rotation(way[:3]) @ camera.turn,
            camera.shift + way[3:6],
            camera.focal * math.exp(np.clip(way[6], -0.2, 0.2)),
        )
        if np.abs(way).max() < SETTLED:
            break
    off = np.linalg.norm(camera.sight(points)[2] - pixels, axis=1)
    return camera, off, float(stiff @ np.square(_change(last, camera)))


def _change(last: _Camera, camera: _Camera) -> np.ndarray:
    """(7,) small turn in radians, shift, log of the ratio of the focal lengths."""
    turn = camera.turn @ last.turn.T
    angles = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    return np.concatenate([angles, camera.shift - last.shift, [math.log(camera.focal / last.focal)]])


def _cross(v: np.ndarray) -> np.ndarray:
    """(P, 3) -> (P, 3, 3) with cross(v) @ u = v x u."""
    x, y, z = v.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)


def rotation(way: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about a vector (3,) by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(way))
    if angle < 1e-12:
        return np.eye(3)
    k = _cross(way[None] / angle)[0]
    turned: np.ndarray = np.eye(3) + math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    return turned


def pose_errors(estimated: np.ndarray, true: np.ndarray, rescale: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rotation errors (T,) in radians and translation errors (T,) in the unit of `true`, of poses (T, 4, 4).

    Both paths are world-to-camera and are first put into the frame of their own first camera. The rotation error is
    arccos((tr(R_est R_true^T) - 1) / 2), the translation error the distance of the camera centres. rescale: lengths
    of the estimate are multiplied by the one factor of least squares (0 or more), for estimates without a scale.
    CameraCtrl, 2024, arXiv:2404.02101, sums both over the frames; their mean is what AC3D, arXiv:2411.18673, is near.
    """
    turns, centres = [], []
    for poses in (estimated, true):
        own = poses.astype(np.float64) @ np.linalg.inv(poses[0].astype(np.float64))
        turns.append(own[:, :3, :3])
        centres.append(-np.einsum("tji,tj->ti", own[:, :3, :3], own[:, :3, 3]))
    if rescale and (power := np.square(centres[0]).sum()):
        centres[0] = centres[0] * max((centres[0] * centres[1]).sum() / power, 0)
    return angle_between(*turns), np.linalg.norm(centres[0] - centres[1], axis=-1)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle (...) in radians of the rotation between rotations (..., 3, 3): arccos((tr(a b^T) - 1) / 2), in 0..pi.

    By |a - b| = 2 sqrt(2) sin(angle / 2), which is exact where the angle is small, too.
    """
    found: np.ndarray = 2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=(-2, -1)) / math.sqrt(8), 0, 1))
    return found
