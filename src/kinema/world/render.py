"""Draws a `SceneState`: batched ray casting in torch, the same on every device.

Three things keep it fast. The ground is drawn row by row: a camera without roll sees all of a row at the same
depth, so position, fog and light are numbers of the row and only the pattern is looked up per pixel. Objects and
shadows are cast only inside the boxes they project to, cut into small tiles so that all of a kind form one batch.
And work goes through in chunks of frames that stay in the processor's cache. None of this is an approximation:
a box always contains what it bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world import look, shapes
from kinema.world.spec import SceneState
from kinema.world.vocabulary import KINDS

TILE = 8  # pixels
GRID = 2  # rays a pixel along each axis, where an object may be seen
CHUNK_PIXELS = 1 << 16  # pixels drawn at a time on a CPU: what its cache holds
CHUNK_PIXELS_GPU = 1 << 23
NEAR = 0.05  # metres
FOG = 70.0  # metres in which the ground takes on 63% of the colour of the horizon
SHADOW_EDGE = 0.16  # width of a shadow's soft edge, in half extents of its object


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


@dataclass
class Items:
    """Objects to draw, one row each (M rows): one object in one frame."""

    frame: Tensor  # (M,) int64 index into Frames
    to_object: Tensor  # (M, 3, 3) world vector -> vector in units of the shape
    centre: Tensor  # (M, 3)
    size: Tensor  # (M,)
    colour: Tensor  # (M, 3)
    opacity: Tensor  # (M,)
    box: Tensor  # (M, 4) int64 x0, y0, x1, y1 in pixels, end exclusive


def unroll(state: SceneState) -> Frames:
    """The frames of a batch as one list.

    Raises:
        ValueError: when a camera is rolled about its view direction; the horizon must be level.
    """
    clips, count = state.centre.shape[:2]
    k, pose = state.intrinsics.flatten(0, 1).float(), state.world_to_camera.flatten(0, 1).float()
    rotation, shift = pose[:, :3, :3], pose[:, :3, 3:]
    if (rotation[:, 0, 2].abs() > 1e-4).any() or (k[:, 1, 0].abs() > 1e-6).any():
        raise ValueError("a camera is rolled; the renderer draws cameras with a level horizon")
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


# ---------------------------------------------------------------------------------------------- ground and sky


@dataclass
class Backdrop:
    """Ground and sky by rows: colour = base + swing * pattern at (x + u * step) texels; F frames, H rows."""

    depth: Tensor  # (F, H) metres along the view direction to the ground; inf in the sky
    lookup: Tensor  # (2, F, H, 2) texel x and y as a line in the column: start and step
    layer: Tensor  # (F,) int32 offset of the ground in the atlas
    base: Tensor  # (3, F, H, 1)
    swing: Tensor  # (3, F, H, 1)


def backdrop(frames: Frames) -> Backdrop:
    """Everything about ground and sky that is the same along a row."""
    device = frames.eye.device
    light, (base, swing) = look.light_table(device), look.ground_table(device)
    rows = torch.arange(frames.height, device=device) + 0.5
    rise = frames.rays[:, 2, 1, None] * rows + frames.rays[:, 2, 2, None]  # (F, H) z of the ray direction
    ground = rise < -1e-6
    depth = torch.where(ground, -frames.eye[:, 2, None] / torch.where(ground, rise, -1.0), torch.inf)
    reach = torch.where(ground, depth, 0.0).clamp_max(1e4)

    start = frames.rays[:, :2, 1, None] * rows + frames.rays[:, :2, 2, None]  # (F, 2, H)
    start = frames.eye[:, :2, None] + reach[:, None] * start
    step = reach[:, None] * frames.rays[:, :2, 0, None]
    drift = (frames.ground == look.GROUNDS.index("water")) * frames.time * look.WATER_DRIFT
    start = start + drift[:, None, None] * torch.tensor([0.6, -0.8], device=device)[:, None]
    periods = 1024 * look.TEXELS  # keeps the whole part positive, so that truncation rounds down
    lookup = torch.stack([start, step], -1).transpose(0, 1) * (look.TEXELS / look.PERIOD)
    lookup[..., 0] = lookup[..., 0].remainder(look.TEXELS) + periods

    amount = light["ambient"] + light["direct"] * light["sun"][:, 2:]  # (S, 3) light on level ground
    lit = amount[frames.sky]
    horizon = light["horizon"][frames.sky]
    haze = 1 - torch.exp(-reach / FOG)
    # One pixel covers depth^2 / (focal * eye height) metres of ground; detail it cannot show fades out.
    footprint = reach.square() * frames.rays[:, :, 0].norm(dim=1)[:, None] / frames.eye[:, 2, None].clamp_min(0.1)
    detail = (1 - haze) / (1 + (footprint / 0.45).square())
    sky = _sky(frames, rise, light)
    over = ground.float()[..., None]
    colour = (base[frames.ground] * lit)[:, None] * (1 - haze[..., None]) + horizon[:, None] * haze[..., None]
    colour = over * colour + (1 - over) * sky
    swings = (swing[frames.ground] * lit)[:, None] * (detail[..., None] * over)
    return Backdrop(
        depth=depth,
        lookup=lookup.contiguous(),
        layer=(frames.ground * look.TEXELS**2).int(),
        base=colour.permute(2, 0, 1)[..., None].contiguous(),
        swing=swings.permute(2, 0, 1)[..., None].contiguous(),
    )


def _sky(frames: Frames, rise: Tensor, light: dict[str, Tensor]) -> Tensor:
    """Colours (F, H, 3) of the sky by rows: the horizon's colour going over into the zenith's."""
    centre = frames.rays[:, :2, 0] * (frames.width / 2) + frames.rays[:, :2, 2]
    level = (centre + frames.rays[:, :2, 1] * (frames.height / 2)).norm(dim=-1, keepdim=True)
    up = 1 - torch.exp(-(rise / level.clamp_min(1e-3)).clamp_min(0) / 0.22)
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


# ---------------------------------------------------------------------------------------------- boxes and tiles


def _corners(kind: str, device: torch.device) -> Tensor:
    """(8, 3) corners of the box around a shape, in its own frame."""
    signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], device=device)
    return signs * torch.tensor(shapes.EXTENT[kind], device=device)


def _screen_box(points: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """Pixel box (M, 4) int64 (x0, y0, x1, y1), end exclusive, of the hull of points (M, P, 3); all, where one is near.

    An object behind the camera or outside the frame gets an empty box.
    """
    p = points @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]
    z = p[..., 2]
    xy = p[..., :2] / z.clamp_min(NEAR)[..., None]
    low, high = xy.amin(1).floor(), xy.amax(1).ceil()
    near = (z < NEAR).any(1, keepdim=True)
    limit = torch.tensor([width, height], device=p.device, dtype=p.dtype)
    low = torch.where(near, torch.zeros_like(low), low.clamp_min(0).minimum(limit))
    high = torch.where(near, limit, high.clamp_min(0).minimum(limit))
    high = torch.where((z < NEAR).all(1, keepdim=True), low, high)
    return torch.cat([low, high], -1).long()


@dataclass
class Tiles:
    """Squares of TILE pixels that cover the boxes of items, K in all, in order of the items."""

    item: Tensor  # (K,) int64
    corner: Tensor  # (K, 2) int64 x, y of the first pixel
    frame: Tensor  # (K,) int64


def cut(box: Tensor, frame: Tensor) -> Tiles:
    """Tiles over the boxes (M, 4) of items in frames (M,)."""
    extent = (box[:, 2:] - box[:, :2]).clamp_min(0)
    counts = (extent + TILE - 1) // TILE
    total = counts[:, 0] * counts[:, 1]
    item = torch.arange(len(box), device=box.device).repeat_interleave(total)
    inside = torch.arange(len(item), device=box.device) - (total.cumsum(0) - total)[item]
    columns = counts[item, 0]
    corner = box[item, :2] + TILE * torch.stack([inside % columns, inside // columns], -1)
    return Tiles(item, corner, frame[item])


def _offsets(grid: int, device: torch.device) -> Tensor:
    """(3, grid^2 * TILE^2) sample points of a tile (x, y, 1), all samples of one kind together."""
    sub = (torch.arange(grid, device=device) + 0.5) / grid
    pixel = torch.arange(TILE, device=device, dtype=torch.float32)
    sy, sx, y, x = torch.meshgrid(sub, sub, pixel, pixel, indexing="ij")
    return torch.stack([x + sx, y + sy, torch.ones_like(x)]).reshape(3, -1)


def _pixel_index(tiles: Tiles, part: slice, first: int, frames: Frames, spare: int) -> Tensor:
    """(k * TILE^2,) index of each pixel of the tiles in a buffer of frames from `first`; outside pixels go to `spare`."""
    step = torch.arange(TILE, device=tiles.item.device)
    x = (tiles.corner[part, 0, None] + step)[:, None, :]
    y = (tiles.corner[part, 1, None] + step)[:, :, None]
    frame = (tiles.frame[part] - first)[:, None, None]
    index = (frame * frames.height + y) * frames.width + x
    return torch.where((x < frames.width) & (y < frames.height), index, spare).view(-1)


# ---------------------------------------------------------------------------------------------- objects


def gather_items(state: SceneState, frames: Frames, slot: Tensor, kind: int) -> Items | None:
    """Visible objects of one kind, one slot a frame; `slot` (F,) is the object to take in each frame."""
    n = state.kind.shape[1]
    count = state.centre.shape[1]
    pick = frames.clip * n + slot  # into (B, N)
    opacity = state.opacity.reshape(-1, n).gather(1, slot[:, None])[:, 0].float()
    size = state.size.reshape(-1, n).gather(1, slot[:, None])[:, 0].float()
    frame = ((state.kind.reshape(-1)[pick] == kind) & (opacity > 0) & (size > 0)).nonzero()[:, 0]
    if not len(frame):
        return None
    row = frame * n + slot[frame]  # into (B * T, N)
    assert state.rotation.shape[1] == count
    rotation = state.rotation.reshape(-1, 3, 3)[row].float()
    centre, size = state.centre.reshape(-1, 3)[row].float(), size[frame]
    corners = _corners(KINDS[kind], centre.device) @ (rotation * size[:, None, None]).transpose(1, 2)
    box = _screen_box(corners + centre[:, None], frames.camera[frame], frames.height, frames.width)
    return Items(
        frame=frame,
        to_object=rotation.transpose(1, 2) / size[:, None, None],
        centre=centre,
        size=size,
        colour=state.colour.reshape(-1, 3)[row].float(),
        opacity=opacity[frame],
        box=box,
    )


@dataclass
class Layer:
    """Objects of one kind, at most one a frame, ready to be drawn."""

    kind: str
    items: Items
    tiles: Tiles
    rays: Tensor  # (K, 3, 3) tile coordinates -> direction in the frame of the shape
    origin: Tensor  # (K, 3) the eye in the frame of the shape
    axes: Tensor  # (K, 6) direction to the sun, and up, in the frame of the shape
    shade: Tensor  # (3, K, 2) colour under ambient and under direct light
    shadow: Tiles
    shadow_rays: Tensor  # (Ks, 3, 3)
    shadow_sun: Tensor  # (Ks, 3)


def make_layer(kind: int, items: Items, frames: Frames) -> Layer:
    """Precomputes what each tile needs."""
    device = items.centre.device
    light = look.light_table(device)
    sky = frames.sky[items.frame]
    tiles = cut(items.box, items.frame)
    eye = frames.eye[items.frame]
    origin = (items.to_object @ (eye - items.centre)[..., None])[..., 0]
    rotate = items.to_object * items.size[:, None, None]
    sun = (rotate @ light["sun"][sky][..., None])[..., 0]
    ambient, direct = items.colour * light["ambient"][sky], items.colour * light["direct"][sky]
    shadow_box = _shadow_box(kind, items, frames, light["sun"][sky])
    shadow = cut(shadow_box, items.frame)
    return Layer(
        kind=KINDS[kind],
        items=items,
        tiles=tiles,
        rays=_tile_rays(items.to_object @ frames.rays[items.frame], tiles),
        origin=origin[tiles.item],
        axes=torch.cat([sun, rotate[:, :, 2]], -1)[tiles.item],
        shade=torch.stack([ambient, direct], -1)[tiles.item].permute(1, 0, 2).contiguous(),
        shadow=shadow,
        shadow_rays=_tile_rays(items.to_object @ frames.rays[items.frame], shadow),
        shadow_sun=sun[shadow.item],
    )


def _tile_rays(rays: Tensor, tiles: Tiles) -> Tensor:
    """Ray matrices of items (M, 3, 3) as matrices of their tiles (K, 3, 3), from coordinates inside the tile."""
    rays = rays[tiles.item]
    corner = tiles.corner.to(rays.dtype)
    third = rays[:, :, 2] + rays[:, :, 0] * corner[:, :1] + rays[:, :, 1] * corner[:, 1:]
    return torch.cat([rays[:, :, :2], third[:, :, None]], -1)


def _shadow_box(kind: int, items: Items, frames: Frames, sun: Tensor) -> Tensor:
    """Pixel boxes (M, 4) of the shadows on the ground."""
    back = torch.linalg.inv(items.to_object)
    corners = _corners(KINDS[kind], sun.device) @ back.transpose(1, 2) + items.centre[:, None]
    ground = corners - corners[..., 2:] / sun[:, None, 2:] * sun[:, None]
    return _screen_box(ground, frames.camera[items.frame], frames.height, frames.width)


def cast_shadow(layer: Layer, part: slice, frames: Frames, scene: Backdrop) -> Tensor:
    """How much of the sun each ground pixel of the shadow tiles loses: (k * TILE^2,) in 0..1."""
    tiles = layer.shadow
    item = tiles.item[part]
    offsets = _offsets(1, item.device)
    d = (layer.shadow_rays[part].reshape(-1, 3) @ offsets).view(-1, 3, TILE * TILE)
    row = (tiles.corner[part, 1, None] + torch.arange(TILE, device=item.device)).clamp_max(frames.height - 1)
    depth = scene.depth[tiles.frame[part, None], row]  # (k, TILE)
    t = depth.repeat_interleave(TILE, 1)
    sky = t.isinf()
    t = torch.where(sky, 0.0, t)
    eye = (layer.items.to_object @ (frames.eye[layer.items.frame] - layer.items.centre)[..., None])[..., 0][item]
    sun = layer.shadow_sun[part]
    ray = shapes.Ray(
        *(eye[:, i, None] + t * d[:, i] for i in range(3)), *(sun[:, i, None].expand_as(t) for i in range(3))
    )
    span = shapes.SPANS[layer.kind](ray)
    loss = ((span.leave - span.enter) / SHADOW_EDGE).clamp(0, 1)
    loss = torch.where(sky | (span.leave <= 0), 0.0, loss)
    return (loss * layer.items.opacity[item, None]).view(-1)


def draw_objects(layer: Layer, part: slice) -> tuple[Tensor, Tensor]:
    """Coverage (k * TILE^2,) and colour times coverage (3, k * TILE^2) of the pixels of some tiles."""
    device = layer.origin.device
    d = (layer.rays[part].reshape(-1, 3) @ _offsets(GRID, device)).view(-1, 3, GRID * GRID * TILE * TILE)
    o = layer.origin[part]
    ray = shapes.Ray(*(o[:, i, None] for i in range(3)), *d.unbind(1))
    span = shapes.SPANS[layer.kind](ray)
    hit = ((span.leave > span.enter) & (span.enter > 0)).float()
    nx, ny, nz = shapes.normal(layer.kind, *ray.at(span.enter))
    axis = layer.axes[part, :, None]
    facing = (nx * axis[:, 0] + ny * axis[:, 1] + nz * axis[:, 2]).clamp_min_(0)
    upward = nx * axis[:, 3] + ny * axis[:, 4] + nz * axis[:, 5]
    ambient = torch.where(hit > 0, 0.80 + 0.20 * upward, 0.0)
    direct = torch.where(hit > 0, facing, 0.0)

    def mean(x: Tensor) -> Tensor:
        return x.view(-1, GRID * GRID, TILE * TILE).mean(1)

    shade = layer.shade[:, part]
    colour = shade[:, :, :1] * mean(ambient) + shade[:, :, 1:] * mean(direct)
    return mean(hit).view(-1), colour.view(3, -1)


# ---------------------------------------------------------------------------------------------- the whole


def make_layers(state: SceneState, frames: Frames) -> list[Layer]:
    """All objects, farthest first in every frame, in layers of one kind and at most one object a frame."""
    n = state.kind.shape[1]
    depth = (frames.camera[:, None, 2, :3] * state.centre.flatten(0, 1)).sum(-1) + frames.camera[:, 2:, 3]
    order = depth.argsort(dim=1, descending=True)  # (F, N)
    kinds = [k for k in state.kind.unique().tolist() if k >= 0]
    layers = []
    for rank in range(n):
        for kind in kinds:
            items = gather_items(state, frames, order[:, rank], kind)
            if items is not None:
                layers.append(make_layer(kind, items, frames))
    return layers


def render_frames(state: SceneState) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 of the scenes, on the device of the state."""
    frames = unroll(state)
    scene = backdrop(frames)
    layers = make_layers(state, frames)
    light = look.light_table(frames.eye.device)
    sunlit = light["direct"] * light["sun"][:, 2:]
    dark = (sunlit / (light["ambient"] + sunlit))[frames.sky]  # (F, 3) part of the ground's light that is direct
    h, w, device = frames.height, frames.width, frames.eye.device
    out = torch.empty(len(frames), h, w, 3, dtype=torch.uint8, device=device)
    chunk = max(1, (CHUNK_PIXELS if device.type == "cpu" else CHUNK_PIXELS_GPU) // (h * w))
    edges = torch.arange(0, len(frames) + chunk, chunk, device=device).clamp_max(len(frames))
    cuts = [torch.searchsorted(x.tiles.frame, edges).tolist() for x in layers]
    shadow_cuts = [torch.searchsorted(x.shadow.frame, edges).tolist() for x in layers]
    bounds = edges.tolist()
    for c in range(len(bounds) - 1):
        first, last = bounds[c], bounds[c + 1]
        if first == last:
            continue
        spare = (last - first) * h * w
        buffer = torch.empty(3, spare + 1, device=device)
        buffer[:, :-1] = paint_backdrop(scene, slice(first, last), w)
        for layer, at in zip(layers, shadow_cuts, strict=True):
            part = slice(at[c], at[c + 1])
            if part.start < part.stop:
                _darken(buffer, layer, part, first, frames, scene, dark)
        for layer, at in zip(layers, cuts, strict=True):
            part = slice(at[c], at[c + 1])
            if part.start < part.stop:
                _blend(buffer, layer, part, first, frames)
        pixels = buffer[:, :-1].mul_(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8)
        out[first:last] = pixels.view(3, last - first, h, w).permute(1, 2, 3, 0)
    return out.view(state.centre.shape[0], -1, h, w, 3)


def _darken(
    buffer: Tensor, layer: Layer, part: slice, first: int, frames: Frames, scene: Backdrop, dark: Tensor
) -> None:
    """Draws the shadows of a layer into the buffer."""
    loss = cast_shadow(layer, part, frames, scene).view(-1, TILE * TILE)
    index = _pixel_index(layer.shadow, part, first, frames, buffer.shape[1] - 1)
    share = dark[layer.shadow.frame[part]].T  # (3, k)
    keep = 1 - share[:, :, None] * loss
    buffer.index_copy_(1, index, buffer.index_select(1, index) * keep.reshape(3, -1))


def _blend(buffer: Tensor, layer: Layer, part: slice, first: int, frames: Frames) -> None:
    """Draws the objects of a layer over the buffer."""
    cover, colour = draw_objects(layer, part)
    index = _pixel_index(layer.tiles, part, first, frames, buffer.shape[1] - 1)
    alpha = layer.items.opacity[layer.tiles.item[part]].repeat_interleave(TILE * TILE)
    buffer.index_copy_(1, index, torch.addcmul(alpha * colour, buffer.index_select(1, index), 1 - alpha * cover))
