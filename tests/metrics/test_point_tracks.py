"""Points followed by Lucas-Kanade, against rendered scenes whose motion is known exactly, and the camera from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clips import real_clips, scenes
from scipy.spatial.transform import Rotation

from kinema.metrics.camera import angle_between, camera_path, pose_errors
from kinema.metrics.point_tracks import point_tracks
from kinema.metrics.viewing import Viewing
from kinema.world.clip import render_clips
from kinema.world.sample import sample_spec


def test_points_follow_the_true_flow():
    """On the ground half of the steps are within a fifth of a pixel; the rest is mostly shadows, which move too."""
    clip = scenes(2, truth=True)[1]
    points, seen = point_tracks(Viewing(clip.frames.numpy()))
    track, time = np.nonzero(seen[:, :-1] & seen[:, 1:])
    at = points[track, time]
    x, y = at.astype(int).T
    known = (clip.mask.numpy()[time, y, x] == 0) & clip.visible.numpy()[time, y, x]
    off = np.linalg.norm(points[track, time + 1] - at - clip.flow.numpy()[time, y, x], axis=1)[known]
    assert len(off) > 1500
    assert np.median(off) < 0.2 and np.quantile(off, 0.75) < 0.5


def test_a_shifted_picture_moves_all_points_by_as_much():
    picture = real_clips()[0].frames[0]
    frames = np.stack([picture[:80, 3 * t : 3 * t + 120] for t in range(4)])  # the camera goes right, points go left
    points, seen = point_tracks(Viewing(frames))
    steps = np.diff(points, axis=1)[seen[:, :-1] & seen[:, 1:]]
    assert len(steps) > 100
    np.testing.assert_allclose(np.median(steps, axis=0), [-3, 0], atol=0.02)
    assert np.isnan(points[~seen]).all() and np.isfinite(points[seen]).all()


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (5, 8, 8, 3), (3, 40, 9, 3)])
def test_nothing_to_follow_gives_no_camera(shape):
    clip = Viewing(np.full(shape, 128, np.uint8))
    points, seen = point_tracks(clip)
    assert points.shape == (0, shape[0], 2) and seen.shape == (0, shape[0])
    assert camera_path(clip) is None


# Seed of a scene, camera move, and the most that the mean error of rotation (degrees), place (metres) and log focal
# length may be.
MOVES = [
    (1008, "still", 0.1, 0.05, 0.01),
    (1026, "pan right", 0.5, 0.1, 0.03),
    (1027, "tilt up", 0.3, 0.2, 0.03),
    (1029, "zoom in", 2.0, 0.5, 0.1),
    (1021, "orbit left", 12.0, 1.5, 0.3),
    (1020, "dolly out", 0.5, 0.6, 0.15),
]


def test_camera_of_rendered_clips():
    """Every kind of move is found; the true place is known up to the camera's height above the ground."""
    specs = [sample_spec(seed, "first", "held_out") for seed, *_ in MOVES]
    specs = [
        replace(s, ground="grass", camera=replace(s.camera, move=m)) for s, (_, m, *_) in zip(specs, MOVES, strict=True)
    ]
    for clip, (_, move, degrees, metres, zoom) in zip(render_clips(specs, truth=False), MOVES, strict=True):
        true, focal = clip.world_to_camera.numpy(), clip.intrinsics[:, 0, 0].numpy()
        path = camera_path(Viewing(clip.frames.numpy()), focal=float(focal[0]))
        assert path is not None, move
        found = path.world_to_camera.copy()
        found[:, :3, 3] *= np.linalg.inv(true[0])[2, 3]  # the height
        rotation, translation = pose_errors(found, true)
        assert np.degrees(rotation.mean()) < degrees, move
        assert translation.mean() < metres, move
        assert np.abs(np.log(path.focal / path.focal[0] / (focal / focal[0]))).mean() < zoom, move


def test_pose_errors_in_closed_form():
    turns = Rotation.from_rotvec(np.outer(np.arange(5) * 0.1, [0, 1, 0])).as_matrix()
    true = np.tile(np.eye(4), (5, 1, 1))
    turned = true.copy()
    turned[:, :3, :3] = turns
    turned[:, :3, 3] = -np.einsum("tij,tj->ti", turns, np.outer(np.arange(5), [2.0, 0, 0]))  # centres 2 t to the right
    rotation, translation = pose_errors(turned, true)
    np.testing.assert_allclose(rotation, np.arange(5) * 0.1, atol=1e-12)
    np.testing.assert_allclose(translation, np.arange(5) * 2.0, atol=1e-12)
    # another first camera, the same motion: no error; half as long a path: no error once it is scaled
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix(), [1, 2, 3]
    for errors in pose_errors(turned @ world, turned):
        np.testing.assert_allclose(errors, 0, atol=1e-7)
    half = turned.copy()
    half[:, :3, 3] /= 2
    np.testing.assert_allclose(pose_errors(half, turned)[1], np.arange(5), atol=1e-12)
    np.testing.assert_allclose(pose_errors(half, turned, rescale=True)[1], 0, atol=1e-12)


def test_angle_between_agrees_with_scipy():
    a, b = (Rotation.random(50, rng=np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_allclose(angle_between(a.as_matrix(), b.as_matrix()), (a * b.inv()).magnitude(), atol=1e-6)
