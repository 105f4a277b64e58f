"""Camera paths from files: frames of reference, times, lenses, and what is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch

from kinema.core.camera import FOCAL, look_rotation, pose, relative
from kinema.core.errors import KinemaError
from kinema.layers.camera_path import parse


@pytest.fixture
def poses():
    """A camera that turns by 0.1 rad and goes by 0.5 m from pose to pose, from somewhere in the world."""
    yaw = 0.4 + 0.1 * torch.arange(5, dtype=torch.float64)
    eye = torch.tensor([1.0, -2.0, 0.7], dtype=torch.float64) + torch.arange(5.0)[:, None] * torch.tensor([0.3, 0.4, 0])
    return pose(look_rotation(yaw, torch.full_like(yaw, -0.2)), eye)


@pytest.fixture
def read(tmp_path):
    def read(data, frames=5, height=64, width=96, fps=8.0):
        name = tmp_path / "path.json"
        name.write_text(data if isinstance(data, str) else json.dumps(data))
        return parse(str(name), frames, height, width, fps)

    return read


def test_poses_are_told_from_the_first(poses, read):
    want = relative(poses).float()
    p = read({"world_to_camera": poses.tolist()})
    assert torch.allclose(p.world_to_camera, want, atol=1e-6)
    assert torch.allclose(p.world_to_camera[0], torch.eye(4), atol=1e-6)
    back = read({"camera_to_world": torch.linalg.inv(poses).tolist()})
    assert torch.allclose(back.world_to_camera, want, atol=1e-6)
    assert torch.equal(p.intrinsics[:, 0, 0], torch.full((5,), FOCAL * 64))


def test_between_poses_the_camera_turns_evenly_and_goes_straight(poses, read):
    p = read({"world_to_camera": poses[[0, 4]].tolist()}, frames=5).world_to_camera
    assert torch.allclose(p, relative(poses).float(), atol=1e-6)  # the turn and the way are even, so two poses tell all
    fine = read({"world_to_camera": poses.tolist()}, frames=33).world_to_camera
    assert torch.allclose(fine[::8], relative(poses).float(), atol=1e-6)
    still = read({"world_to_camera": poses[:1].tolist()}, frames=3).world_to_camera
    assert torch.allclose(still, torch.eye(4).expand(3, 4, 4), atol=1e-6)


def test_fps_says_when_the_poses_are(poses, read):
    many = relative(poses).float()
    data = {"world_to_camera": poses.tolist(), "fps": 16}
    assert torch.allclose(read(data, frames=3, fps=8.0).world_to_camera, many[::2], atol=1e-6)
    assert torch.allclose(read(data, frames=9, fps=32.0).world_to_camera[::2], many, atol=1e-6)
    assert torch.allclose(read(data, frames=10, fps=32.0).world_to_camera[-1], many[-1], atol=1e-6)  # as the last lasts
    with pytest.raises(KinemaError, match=r"the poses last 0.3125s and the video 1s"):
        read(data, frames=8, fps=8.0)


def test_lenses_are_scaled_to_cover_the_frames(poses, read):
    lens = [100.0, 100.0, 70.0, 60.0]
    data = {"world_to_camera": poses.tolist(), "intrinsics": lens, "height": 128, "width": 128}
    k = read(data).intrinsics  # 128 x 128 covers 64 x 96 at a scale of 0.75; 16 rows are cut on both sides
    assert torch.allclose(k, torch.tensor([[75.0, 0, 52.5], [0, 75.0, 29.0], [0, 0, 1]]).expand(5, 3, 3))
    matrix = [[100.0, 0, 70.0], [0, 100.0, 60.0], [0, 0, 1]]
    assert torch.equal(read({**data, "intrinsics": matrix}).intrinsics, k)
    assert torch.equal(read({**data, "intrinsics": [matrix] * 5}).intrinsics, k)
    zoom = [[100.0 + 50 * i, 100.0 + 50 * i, 64.0, 64.0] for i in range(5)]
    assert torch.allclose(read({**data, "intrinsics": zoom}, frames=9).intrinsics[:, 0, 0].diff(), torch.tensor(18.75))


def with_pose(poses, i, matrix):
    return {"world_to_camera": [*poses[:i].tolist(), matrix, *poses[i + 1 :].tolist()]}


def test_refuses_what_is_no_camera(poses, read):
    good = {"world_to_camera": poses.tolist()}
    half = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    scaled, mirrored = torch.diag(torch.tensor([2.0, 2, 2, 1])), torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    lens = {"intrinsics": [100, 100, 64, 64], "height": 128, "width": 128}
    cases = {
        "pose 2 of world_to_camera is no rotation and place": with_pose(poses, 2, scaled.tolist()),
        "pose 1 of world_to_camera is no rotation and place": with_pose(poses, 1, mirrored.tolist()),
        "pose 0 of world_to_camera is no rotation": with_pose(poses, 0, torch.eye(4).flip(0).tolist()),
        "holds numbers that are not finite": with_pose(poses, 3, [[math.nan] * 4] * 4),
        "is no even list of numbers": with_pose(poses, 3, [["1"] * 4] * 4),
        "world_to_camera is no even list": with_pose(poses, 3, [[1.0]]),
        "has the shape (5, 3, 4)": {"world_to_camera": poses[:, :3].tolist()},
        "has the shape (0,)": {"world_to_camera": []},
        "use at most 10000": {"world_to_camera": [0] * 10001},
        "poses 0 and 1 are half a turn apart": {"world_to_camera": [torch.eye(4).tolist(), half.tolist()]},
        "one of the two": {**good, "camera_to_world": []},
        "as a list of 4x4 matrices": [1, 2],
        "there is no 'focal' in a camera's file": {**good, "focal": 2},
        "fps is 0; give a number above 0": {**good, "fps": 0},
        "fps is inf": {**good, "fps": math.inf},
        "width is None": {**good, "intrinsics": [100, 100, 64, 64]},
        "one for all or for each of 5 poses": {**good, **lens, "intrinsics": [[100, 100, 64, 64]] * 4},
        "focal lengths above 0": {**good, **lens, "intrinsics": [100, -100, 64, 64]},
        "the form [[fx, s, cx]": {**good, **lens, "intrinsics": [[100, 0, 64], [0, 100, 64], [0, 1, 1]]},
        "it is no JSON": "{",
        "it is no JSON; write": "[" * 100_000,
    }
    for says, data in cases.items():
        with pytest.raises(KinemaError) as caught:
            read(data)
        assert says in str(caught.value) and "path.json: " in str(caught.value) and "\n" not in str(caught.value)


def test_refuses_files_that_are_not_there_or_too_large(tmp_path, monkeypatch, read):
    with pytest.raises(KinemaError, match=r"none.json: "):
        parse(str(tmp_path / "none.json"), 5, 64, 64, 8.0)
    monkeypatch.setattr("kinema.layers.camera_file.LARGEST", 10)
    with pytest.raises(KinemaError, match="one of more than"):
        read({"world_to_camera": [torch.eye(4).tolist()]})
