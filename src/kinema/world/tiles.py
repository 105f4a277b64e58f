"""Which rays can meet which object: boxes on the screen, cut into small tiles that are cast as one batch.

The box of an object contains the projection of the box around its shape, so leaving out all other pixels changes
nothing; the box of a shadow contains the same box carried to the ground along the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world import billboard, figure, shapes
from kinema.world.backdrop import Frames
from kinema.world.billboard import Atlas
from kinema.world.shapes import Ray, Span
from kinema.world.spec import SceneState
from kinema.world.vocabulary import KINDS

TILE = 8  # pixels
NEAR = 0.05  # metres

# Where the rays of one pixel go. Four on a turned square smooth upright and level edges best.
CENTRE = ((0.5, 0.5),)
SMOOTH = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))


@dataclass
class Items:
    """Objects of one kind, one row for each frame they are seen in (M rows)."""

    kind: str
    frame: Tensor  # (M,) int64 index into Frames, ascending
    index: Tensor  # (M,) int64 number of the object in its clip
    to_object: Tensor  # (M, 3, 3) world vector -> vector in units of the shape
    centre: Tensor  # (M, 3)
    size: Tensor  # (M,)
    colour: Tensor  # (M, 3)
    opacity: Tensor  # (M,)
    box: Tensor  # (M, 4) int64 x0, y0, x1, y1 in pixels, end exclusive
    limbs: Tensor | None = None  # (M, 6, 2, 3) of figures
    image: Tensor | None = None  # (M,) int64 row of the atlas, of flat objects
    atlas: Atlas | None = None
    level: Tensor | None = None  # (M,) int64 level of detail of the image

    def __len__(self) -> int:
        return len(self.frame)

    def local(self, item: Tensor, points: Tensor) -> Tensor:
        """World points (K, 3) in the frames of the shapes of rows item (K,)."""
        return (self.to_object[item] @ (points - self.centre[item])[..., None])[..., 0]

    def turn(self, item: Tensor, directions: Tensor) -> Tensor:
        """World directions (K, 3) in the frames of the shapes of rows item (K,), same length."""
        return (self.to_object[item] @ directions[..., None])[..., 0] * self.size[item, None]

    def span(self, ray: Ray, item: Tensor, fine: bool = False) -> Span:
        """Where rays (K, R) of rows item (K,) are inside their objects; `fine` for measuring, not for looking."""
        if self.limbs is not None:
            return figure.figure_span(ray, self.limbs[item])
        if self.atlas is not None and self.image is not None:
            return shapes.sheet_span(ray, self.atlas.aspect[self.image[item], None])
        if self.kind == "ring":
            return shapes.ring_span(ray, 40 if fine else 16)
        return shapes.SPANS[self.kind](ray)

    def rgba(self, item: Tensor, x: Tensor, z: Tensor) -> Tensor:
        """Colour times alpha, and alpha, (4, K, R) of flat objects at points x, z (K, R)."""
        assert self.atlas is not None and self.image is not None and self.level is not None
        image = self.image[item]
        u, v = 0.5 + 0.5 * x / self.atlas.aspect[image, None], 0.5 - 0.5 * z
        return self.atlas.sample(image, self.level[item], u.clamp(0, 1), v.clamp(0, 1))

    def solid(self, ray: Ray, span: Span, item: Tensor) -> Tensor:
        """How much of each ray (K, R) the object stops, 0..1, not counting its opacity."""
        hit = (span.leave > span.enter).to(span.enter.dtype)
        if self.atlas is None:
            return hit
        x, _, z = ray.at(span.enter)
        return hit * self.rgba(item, x, z)[3]


def gather_items(state: SceneState, frames: Frames, atlas: Atlas | None, slot: Tensor, chosen: Tensor) -> Items | None:
    """Visible objects of one kind, at most one a frame.

    Args:
        slot: (F,) object to take in each frame.
        chosen: (B, N) bool, which objects count; all of one kind.
    """
    n = state.kind.shape[1]
    opacity = state.opacity.reshape(-1, n).gather(1, slot[:, None])[:, 0].float()
    size = state.size.reshape(-1, n).gather(1, slot[:, None])[:, 0].float()
    seen = chosen.reshape(-1)[frames.clip * n + slot] & (opacity > 0) & (size > 0)
    frame = seen.nonzero()[:, 0]
    if not len(frame):
        return None
    index = slot[frame]
    row = frame * n + index  # into (B * T, N)
    clip_row = frames.clip[frame] * n + index  # into (B, N)
    kind = KINDS[int(state.kind.reshape(-1)[clip_row[0]])]
    rotation = state.rotation.reshape(-1, 3, 3)[row].float()
    centre, size = state.centre.reshape(-1, 3)[row].float(), size[frame]
    items = Items(
        kind=kind,
        frame=frame,
        index=index,
        to_object=rotation.transpose(1, 2) / size[:, None, None],
        centre=centre,
        size=size,
        colour=state.colour.reshape(-1, 3)[row].float(),
        opacity=opacity[frame].clamp(0, 1),
        box=torch.empty(0),
    )
    if kind == "figure":
        items.limbs = figure.limbs(state.pose.reshape(-1, 4)[row].float())
    if kind in shapes.FLAT:
        assert atlas is not None
        items.atlas, items.image = atlas, atlas.row.reshape(-1)[clip_row]
    items.box = screen_box(corners(items), frames.camera[frame], frames.height, frames.width)
    if kind in shapes.FLAT:
        items.level = billboard.level_of((items.box[:, 3] - items.box[:, 1]).float())
    return items


def corners(items: Items) -> Tensor:
    """(M, 8, 3) corners of the boxes around objects, in the world."""
    device = items.centre.device
    signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], device=device)
    local = signs * torch.tensor(shapes.EXTENT[items.kind], device=device)
    back = items.to_object.transpose(1, 2) * items.size.square()[:, None, None]  # inverse of a turn over a size
    if items.atlas is not None and items.image is not None:
        aspect = items.atlas.aspect[items.image]
        local = local * torch.stack([aspect, torch.ones_like(aspect), torch.ones_like(aspect)], -1)[:, None]
    return local @ back.transpose(1, 2) + items.centre[:, None]


def screen_box(points: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """Pixel boxes (M, 4) int64 (x0, y0, x1, y1), end exclusive, of the hulls of points (M, P, 3).

    Hulls that reach behind the camera get the whole frame, hulls all behind it or outside the frame an empty box.
    """
    p = points @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]
    z = p[..., 2]
    xy = p[..., :2] / z.clamp_min(NEAR)[..., None]
    near = (z < NEAR).any(1, keepdim=True)
    limit = torch.tensor([width, height], device=p.device, dtype=p.dtype)
    low = torch.where(near, torch.zeros_like(limit), xy.amin(1).floor().clamp_min(0).minimum(limit))
    high = torch.where(near, limit, xy.amax(1).ceil().clamp_min(0).minimum(limit))
    high = torch.where((z < NEAR).all(1, keepdim=True), low, high)
    return torch.cat([low, high], -1).long()


@dataclass
class Tiles:
    """Squares of TILE pixels that cover the boxes of items, K in all, in order of the items."""

    item: Tensor  # (K,) int64
    corner: Tensor  # (K, 2) int64 x, y of the first pixel
    frame: Tensor  # (K,) int64, ascending


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


def tile_rays(rays: Tensor, corner: Tensor) -> Tensor:
    """Ray matrices (K, 3, 3) from pixel coordinates, changed to take coordinates inside tiles at corner (K, 2)."""
    at = corner.to(rays.dtype)
    third = rays[:, :, 2] + rays[:, :, 0] * at[:, :1] + rays[:, :, 1] * at[:, 1:]
    return torch.cat([rays[:, :, :2], third[:, :, None]], -1)


def sample_points(samples: tuple[tuple[float, float], ...], device: torch.device) -> Tensor:
    """(3, S * TILE^2) points (x, y, 1) of a tile: the first sample of all its pixels, then the second, ..."""
    pixel = torch.arange(TILE, device=device, dtype=torch.float32)
    shift = torch.tensor(samples, device=device)
    x = (pixel[None, None, :] + shift[:, 0, None, None]).expand(-1, TILE, -1)
    y = (pixel[None, :, None] + shift[:, 1, None, None]).expand(-1, -1, TILE)
    return torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)


def cast(matrix: Tensor, points: Tensor) -> Tensor:
    """Directions (K, 3, R) of sample points (3, R) by ray matrices (K, 3, 3)."""
    return (matrix.reshape(-1, 3) @ points).view(-1, 3, points.shape[1])


def pixel_index(tiles: Tiles, part: slice, first: int, frames: Frames, spare: int) -> Tensor:
    """(k * TILE^2,) index of each pixel of some tiles in a buffer that starts at frame `first`; outside: `spare`."""
    step = torch.arange(TILE, device=tiles.item.device)
    x = (tiles.corner[part, 0, None] + step)[:, None, :]
    y = (tiles.corner[part, 1, None] + step)[:, :, None]
    frame = (tiles.frame[part] - first)[:, None, None]
    index = (frame * frames.height + y) * frames.width + x
    return torch.where((x < frames.width) & (y < frames.height), index, spare).view(-1)
