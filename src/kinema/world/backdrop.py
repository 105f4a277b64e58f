"""Cameras, ground and sky of a batch, row by row.

A camera without roll sees all of a row of ground at the same depth, so position, fog and light are numbers of the
row, and only the pattern of the ground is looked up per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world import look
from kinema.world.spec import SceneState
from kinema.world.vocabulary import GROUNDS

FOG = 70.0  # metres in which the ground takes on 63% of the colour of the horizon


@dataclass
class Frames:
    """All frames of a batch as one list, F = B * T, with what drawing them needs."""

    rays: Tensor  # (F, 3, 3) world direction of pixel (u, v, 1), with depth 1
    eye: Tensor  # (F, 3)
    camera: Tensor  # (F, 3, 4) world to pixel, homogeneous
    clip: Tensor  # (F,) int64, which clip a frame belongs to
    time: Tensor  # (F,) frame number in its clip
    ground: Tensor  # (F,)
    sky: Tensor  # (F,)
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.eye)


def unroll(state: SceneState) -> Frames:
    """The frames of a batch as one list.

    Raises:
        ValueError: when a camera is rolled about its view direction; the horizon must be level.
    """
    clips, count = state.centre.shape[:2]
    k, pose = state.intrinsics.flatten(0, 1).float(), state.world_to_camera.flatten(0, 1).float()
    rotation, shift = pose[:, :3, :3], pose[:, :3, 3:]
    if (rotation[:, 0, 2].abs() > 1e-4).any() or (k[:, 1, 0].abs() > 1e-6).any():
        raise ValueError("a camera is rolled about its view direction; only level cameras can be drawn")
    inverse = torch.zeros_like(k)
    inverse[:, 0, 0], inverse[:, 1, 1], inverse[:, 2, 2] = 1 / k[:, 0, 0], 1 / k[:, 1, 1], 1.0
    inverse[:, 0, 2], inverse[:, 1, 2] = -k[:, 0, 2] / k[:, 0, 0], -k[:, 1, 2] / k[:, 1, 1]
    back = rotation.transpose(1, 2)
    device = k.device
    return Frames(
        rays=back @ inverse,
        eye=-(back @ shift)[..., 0],
        camera=k @ pose[:, :3],
        clip=torch.arange(clips, device=device).repeat_interleave(count),
        time=torch.arange(count, device=device).repeat(clips),
        ground=state.ground.repeat_interleave(count),
        sky=state.sky.repeat_interleave(count),
        height=state.height,
        width=state.width,
    )


@dataclass
class Backdrop:
    """Ground and sky by rows: colour = base + swing * pattern at (x + u * step) texels; F frames, H rows."""

    depth: Tensor  # (F, H) metres along the view direction to the ground; inf in the sky
    lookup: Tensor  # (2, F, H, 2) texel x and y as a line in the column: start and step
    layer: Tensor  # (F,) int32 offset of the ground in the atlas
    base: Tensor  # (3, F, H, 1)
    swing: Tensor  # (3, F, H, 1)
    dark: Tensor  # (F, 3) part of the light on the ground that a shadow takes away


def ground_depth(frames: Frames, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Depth (F, H) in metres at which rows (H,) of pixels meet the ground, inf for the sky; and their rise (F, H)."""
    rise = frames.rays[:, 2, 1, None] * rows + frames.rays[:, 2, 2, None]  # z of the ray direction
    ground = rise < -1e-6
    depth = torch.where(ground, -frames.eye[:, 2, None] / torch.where(ground, rise, -1.0), torch.inf)
    return torch.where(depth > 0, depth, torch.inf), rise


def make_backdrop(frames: Frames) -> Backdrop:
    """Everything about ground and sky that is the same along a row."""
    device = frames.eye.device
    light, (base, swing) = look.light_table(device), look.ground_table(device)
    rows = torch.arange(frames.height, device=device) + 0.5
    depth, rise = ground_depth(frames, rows)
    ground = depth < torch.inf
    reach = torch.where(ground, depth, 0.0).clamp_max(1e4)

    start = frames.rays[:, :2, 1, None] * rows + frames.rays[:, :2, 2, None]  # (F, 2, H)
    start = frames.eye[:, :2, None] + reach[:, None] * start
    step = reach[:, None] * frames.rays[:, :2, 0, None]
    drift = (frames.ground == GROUNDS.index("water")) * frames.time * look.WATER_DRIFT
    start = start + drift[:, None, None] * torch.tensor([0.6, -0.8], device=device)[:, None]
    periods = 1024 * look.TEXELS  # keeps the sum positive, so that truncation rounds down
    lookup = torch.stack([start, step], -1).transpose(0, 1) * (look.TEXELS / look.PERIOD)
    lookup[..., 0] = lookup[..., 0].remainder(look.TEXELS) + periods

    sunlit = light["direct"] * light["sun"][:, 2:]  # (S, 3) direct light on level ground
    lit = (light["ambient"] + sunlit)[frames.sky]
    horizon = light["horizon"][frames.sky]
    haze = 1 - torch.exp(-reach / FOG)
    # One pixel covers depth^2 / (focal * eye height) metres of ground; detail it cannot show fades out.
    footprint = reach.square() * frames.rays[:, :, 0].norm(dim=1)[:, None] / frames.eye[:, 2, None].clamp_min(0.1)
    detail = (1 - haze) / (1 + (footprint / 0.45).square())
    over = ground.float()[..., None]
    colour = (base[frames.ground] * lit)[:, None] * (1 - haze[..., None]) + horizon[:, None] * haze[..., None]
    colour = over * colour + (1 - over) * _sky(frames, rise, light)
    swings = (swing[frames.ground] * lit)[:, None] * (detail[..., None] * over)
    return Backdrop(
        depth=depth,
        lookup=lookup.contiguous(),
        layer=(frames.ground * look.TEXELS**2).int(),
        base=colour.permute(2, 0, 1)[..., None].contiguous(),
        swing=swings.permute(2, 0, 1)[..., None].contiguous(),
        dark=sunlit[frames.sky] / lit,
    )


def _sky(frames: Frames, rise: Tensor, light: dict[str, Tensor]) -> Tensor:
    """Colours (F, H, 3) of the sky by rows: the horizon's colour going over into the zenith's."""
    ahead = frames.rays[:, :2] @ torch.tensor([frames.width / 2, frames.height / 2, 1.0], device=rise.device)
    up = 1 - torch.exp(-(rise / ahead.norm(dim=-1, keepdim=True).clamp_min(1e-3)).clamp_min(0) / 0.22)
    horizon, zenith = light["horizon"][frames.sky], light["zenith"][frames.sky]
    return horizon[:, None] + up[..., None] * (zenith - horizon)[:, None]


def paint_backdrop(scene: Backdrop, part: slice, width: int) -> Tensor:
    """Ground and sky of some frames: (3, f * H * W) in 0..1."""
    line = scene.lookup[:, part]
    _, f, h, _ = line.shape
    device = line.device
    columns = torch.arange(width, device=device) + 0.5
    ends = torch.stack([torch.ones_like(columns), columns])  # (2, W)
    texel = (line.reshape(-1, 2) @ ends).int().bitwise_and_(look.TEXELS - 1).view(2, f, h * width)
    index = texel[0].add_(texel[1], alpha=look.TEXELS).add_(scene.layer[part, None])
    pattern = look.ground_atlas(device).view(-1).index_select(0, index.view(-1)).view(1, f, h, width)
    return torch.addcmul(scene.base[:, part], scene.swing[:, part], pattern).view(3, -1)
