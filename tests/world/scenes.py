"""Scenes made by hand, so that tests of the renderer need no simulator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kinema.world.cameras import look_rotation, pose
from kinema.world.spec import SceneState
from kinema.world.vocabulary import COLOURS, GROUNDS, KINDS, MATERIALS, SKIES


def about_z(angle: float) -> Tensor:
    """Rotation (3, 3) about z."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def about_y(angle: float) -> Tensor:
    """Rotation (3, 3) about y."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def camera(eyes: list[tuple[float, float, float]], pitch: float = -0.2, focal: float = 110.0, side: int = 64):
    """Intrinsics (T, 3, 3) and poses (T, 4, 4) of cameras that look along +y from the eyes."""
    eye = torch.tensor(eyes)
    k = torch.tensor([[focal, 0.0, side / 2], [0.0, focal, side / 2], [0.0, 0.0, 1.0]]).repeat(len(eyes), 1, 1)
    yaw = torch.zeros(len(eyes))
    return k, pose(look_rotation(yaw, yaw + pitch), eye)


def scene(
    things: list[tuple[str, tuple[float, float, float], float]],
    *,
    frames: int = 1,
    side: int = 64,
    material: str = "matte",
    ground: str = "sand",
    sky: str = "day",
    eyes: list[tuple[float, float, float]] | None = None,
    colours: tuple[str, ...] = ("red", "blue", "yellow"),
) -> SceneState:
    """One clip of things (kind, centre, size) that stand still."""
    n = len(things)
    k, m = camera(eyes or [(0.0, -6.0, 2.0)] * frames, side=side)
    return SceneState(
        kind=torch.tensor([[KINDS.index(kind) for kind, _, _ in things]]),
        material=torch.full((1, n), MATERIALS.index(material)),
        centre=torch.tensor([c for _, c, _ in things]).repeat(1, frames, 1, 1),
        rotation=torch.eye(3).repeat(1, frames, n, 1, 1),
        size=torch.tensor([s for _, _, s in things]).repeat(1, frames, 1),
        colour=torch.tensor([COLOURS[colours[i % len(colours)]] for i in range(n)]).repeat(1, frames, 1, 1),
        opacity=torch.ones(1, frames, n),
        pose=torch.zeros(1, frames, n, 4),
        ground=torch.tensor([GROUNDS.index(ground)]),
        sky=torch.tensor([SKIES.index(sky)]),
        intrinsics=k[None],
        world_to_camera=m[None],
        height=side,
        width=side,
    )
