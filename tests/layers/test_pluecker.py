"""Pluecker rays in closed form."""

from __future__ import annotations

import pytest
import torch

from kinema.core.camera import intrinsics_of, look_rotation, pose
from kinema.layers.pluecker import pluecker

SIZE, GRID = (60, 100), (6, 10)


@pytest.fixture
def cameras():
    """Two clips of three frames: focal lengths, yaws, pitches and eyes from a seed."""
    g = torch.Generator().manual_seed(3)
    yaw, pitch = (torch.rand(2, 2, 3, generator=g, dtype=torch.float64) - 0.5).unbind(0)
    eye = torch.rand(2, 3, 3, generator=g, dtype=torch.float64) * 4
    k = intrinsics_of(50 + 40 * torch.rand(6, generator=g, dtype=torch.float64), *SIZE).unflatten(0, (2, 3))
    return k, pose(look_rotation(yaw, pitch), eye)


def test_rays_of_an_identity_camera():
    k = intrinsics_of(torch.tensor([50.0]), *SIZE)[None]
    rays = pluecker(k, torch.eye(4)[None, None], SIZE, GRID)
    assert rays.shape == (1, 1, 6, 6, 10)
    assert not rays[:, :, :3].any()  # the eye is in the origin
    d = rays[0, 0, 3:]
    # the middle of cell (row 1, column 7) of 10 x 10 pixels is pixel (75, 15); the picture's middle is (50, 30)
    assert torch.allclose(d[:, 1, 7] / d[2, 1, 7], torch.tensor([25 / 50, -15 / 50, 1.0]))
    assert torch.allclose(d.norm(dim=0), torch.ones(GRID))


def test_the_grid_lies_even_over_the_picture():
    """Middles of cells, so that all grids have one middle and a pixel's grid goes through half integers."""
    k = intrinsics_of(torch.tensor([50.0]), *SIZE)[None]
    for grid in ((1, 1), (3, 5), (60, 100)):
        d = pluecker(k, torch.eye(4)[None, None], SIZE, grid)[0, 0, 3:]
        assert torch.allclose(d, -d.flip(1, 2) * torch.tensor([1.0, 1.0, -1.0])[:, None, None], atol=1e-6)
    assert d[0, 0, 0] / d[2, 0, 0] == pytest.approx((0.5 - 50) / 50)
    assert d[1, -1, 0] / d[2, -1, 0] == pytest.approx((59.5 - 30) / 50)


def test_the_moment_stands_upright_on_the_ray_and_is_the_same_all_along_it(cameras):
    rays = pluecker(*cameras, SIZE, GRID)
    m, d = rays[:, :, :3], rays[:, :, 3:]
    assert torch.allclose((m * d).sum(2), torch.zeros(2, 3, *GRID, dtype=m.dtype), atol=1e-12)
    assert m[:, 1:].norm(dim=2).min() > 0.01
    # o + s d for any s gives the same moment; o comes back from m and d as d x m + (o . d) d
    other = torch.linalg.cross(d, m, dim=2) + 7.0 * d
    assert torch.allclose(torch.linalg.cross(other, d, dim=2), m, atol=1e-12)


def test_a_point_in_the_world_lies_on_the_ray_of_its_pixel(cameras):
    k, poses = cameras
    rays = pluecker(k, poses, SIZE, GRID)
    row, column, depth = 4, 2, 3.7
    pixel = torch.tensor([(column + 0.5) * 10, (row + 0.5) * 10, 1.0], dtype=torch.float64)
    seen = torch.linalg.inv(k) @ pixel * depth  # in each camera's own frame
    whole = torch.cat([seen, torch.ones(2, 3, 1, dtype=torch.float64)], -1)
    first = (poses[:, :1] @ torch.linalg.inv(poses) @ whole[..., None])[..., :3, 0]  # in the first camera's
    m, d = rays[:, :, :3, row, column], rays[:, :, 3:, row, column]
    assert torch.allclose(torch.linalg.cross(first, d), m, atol=1e-10)


def test_all_is_told_in_the_frame_of_the_first_camera(cameras):
    k, poses = cameras
    moved = poses @ pose(look_rotation(torch.tensor(0.9), torch.tensor(-0.3)), torch.tensor([3.0, -2.0, 1.0])).double()
    rays = pluecker(k, poses, SIZE, GRID)
    assert torch.allclose(rays, pluecker(k, moved, SIZE, GRID), atol=1e-5)
    assert torch.allclose(rays[:, 0, :3], torch.zeros(2, 3, *GRID, dtype=rays.dtype), atol=1e-12)


def test_a_zoom_changes_the_directions_alone():
    k = intrinsics_of(torch.tensor([50.0, 80.0]), *SIZE)[None]
    far = torch.eye(4)
    far[2, 3] = -2.0  # two metres forward
    rays = pluecker(k, torch.eye(4).expand(1, 2, 4, 4), SIZE, GRID)
    assert torch.equal(rays[:, 0, :3], rays[:, 1, :3]) and not torch.equal(rays[:, 0, 3:], rays[:, 1, 3:])
    dolly = pluecker(k[:, :1].expand(1, 2, 3, 3), torch.stack([torch.eye(4), far])[None], SIZE, GRID)
    assert torch.equal(dolly[:, 0, 3:], dolly[:, 1, 3:]) and not torch.equal(dolly[:, 0, :3], dolly[:, 1, :3])
