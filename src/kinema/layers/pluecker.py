"""Rays of a camera as Pluecker coordinates: six numbers that say where a pixel looks from, and where to."""

from __future__ import annotations

import torch
from torch import Tensor

from kinema.core.camera import relative


def pluecker(intrinsics: Tensor, world_to_camera: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The rays through the middles of the cells of an even grid over each frame, (B, F, 6, rows, columns).

    With [u, v] the middle of a cell in pixels, d = R^T K^-1 [u, v, 1] normalised and o the camera's centre, a ray is
    p = (o x d, d): the same wherever along the ray o is taken. All is in the frame of the first camera of each clip.

    Args:
        intrinsics: (B, F, 3, 3) in pixels, pixel centres at half integers.
        world_to_camera: (B, F, 4, 4), in any one frame for each clip; metres.
        size: height and width of the frames, pixels.
        grid: rows and columns.
    """
    (height, width), (rows, columns) = size, grid
    poses = relative(world_to_camera)
    rotation, place = poses[..., :3, :3], poses[..., :3, 3:]
    u = (torch.arange(columns, device=poses.device, dtype=poses.dtype) + 0.5) * (width / columns)
    v = (torch.arange(rows, device=poses.device, dtype=poses.dtype) + 0.5) * (height / rows)
    v, u = torch.meshgrid(v, u, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)  # (3, rows * columns)
    d = rotation.mT @ torch.linalg.inv(intrinsics) @ pixels  # (B, F, 3, rows * columns)
    d = d / d.norm(dim=2, keepdim=True)
    o = -(rotation.mT @ place)
    rays = torch.cat([torch.linalg.cross(o.expand_as(d), d, dim=2), d], dim=2)
    return rays.reshape(*rays.shape[:3], rows, columns)
