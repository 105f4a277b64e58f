"""Draws a `SceneState`: batched ray casting in torch, the same on every device.

Three things keep it fast: ground and sky are drawn row by row (`backdrop`), objects and shadows are cast only where
they can be seen, in small tiles that form one batch (`tiles`), and work goes through in chunks of frames that stay
in the processor's cache. None of this is an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world import surface
from kinema.world.backdrop import Backdrop, Frames, ground_depth, make_backdrop, paint_backdrop, unroll
from kinema.world.billboard import build_atlas
from kinema.world.shapes import Ray
from kinema.world.spec import SceneState
from kinema.world.surface import Layer
from kinema.world.tiles import (
    CENTRE,
    TILE,
    Items,
    Tiles,
    cast,
    cut,
    gather_items,
    pixel_index,
    sample_points,
    tile_rays,
)
from kinema.world.vocabulary import MATERIALS

CHUNK_PIXELS = 1 << 16  # pixels drawn at a time on a CPU: what its cache holds
CHUNK_PIXELS_GPU = 1 << 23
SEEN = 0.5  # opacity from which an object hides what is behind it, in masks and depth


Chunks = Iterator[tuple[int, int, list[slice]]]


@dataclass
class Rendered:
    """Pictures and what is seen in them; B clips, T frames of H rows and W columns.

    Depth is measured along the view direction in metres, through pixel centres, and is inf in the sky. The mask is
    -1 for the sky, 0 for the ground, i + 1 for object i; objects less opaque than 0.5 are not in mask and depth.
    """

    frames: Tensor  # (B, T, H, W, 3) uint8, sRGB
    depth: Tensor  # (B, T, H, W) float32
    mask: Tensor  # (B, T, H, W) int8


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[int]:
    """No gradients and full float32 inside, whatever the caller (a training, say) has chosen for its own matrices.

    On a CPU every operation runs on one thread inside; the value is the number of threads that were allowed, for
    `_for_each`. Threads that share one small operation mostly wait for each other, on a busy machine ten times longer
    than they work; a chunk of frames to each thread has no such waits.
    """
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("highest")
    if device.type == "cpu" and threads > 1:
        torch.set_num_threads(1)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield threads if device.type == "cpu" else 1
    finally:
        torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def objects_by_depth(state: SceneState, frames: Frames, by_material: bool) -> list[tuple[str, Items]]:
    """All visible objects with their materials, farthest first in every frame, one kind (and material) at a time."""
    n = state.kind.shape[1]
    atlas = build_atlas(state)
    depth = (frames.camera[:, None, 2, :3] * state.centre.flatten(0, 1)).sum(-1) + frames.camera[:, 2:, 3]
    order = depth.argsort(dim=1, descending=True, stable=True)  # (F, N)
    groups = torch.stack([state.kind, state.material if by_material else torch.zeros_like(state.kind)], -1)
    found = []
    for rank in range(n):
        for kind, material in torch.unique(groups[state.kind >= 0], dim=0).tolist():
            chosen = (groups[..., 0] == kind) & (groups[..., 1] == material)
            items = gather_items(state, frames, atlas, order[:, rank], chosen)
            if items is not None:
                found.append((MATERIALS[material], items))
    return found


def _chunks(frames: Frames, tiles: list[Tiles]) -> Chunks:
    """First and last frame of each chunk, and the part of every list of tiles that lies in it."""
    device = frames.eye.device
    pixels = CHUNK_PIXELS if device.type == "cpu" else CHUNK_PIXELS_GPU
    step = max(1, pixels // (frames.height * frames.width))
    bounds = [*range(0, len(frames), step), len(frames)]
    edges = torch.tensor(bounds, device=device)
    cuts = [torch.searchsorted(x.frame, edges).tolist() for x in tiles]
    for c in range(len(bounds) - 1):
        yield bounds[c], bounds[c + 1], [slice(at[c], at[c + 1]) for at in cuts]


def _for_each(draw: Callable[[int, int, list[slice]], None], chunks: Chunks, threads: int) -> None:
    """Draws all chunks, as many at a time as there are threads."""
    if threads == 1:
        for chunk in chunks:
            draw(*chunk)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(draw, *chunk) for chunk in chunks]:
            done.result()


def render_frames(state: SceneState) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 of the scenes, on the device of the state. Deterministic.

    Raises:
        ValueError: when a camera is rolled, or a picture or letter has no RGBA image.
    """
    with exact_arithmetic(state.centre.device) as threads:
        return _paint(state, unroll(state), threads)


def _paint(state: SceneState, frames: Frames, threads: int) -> Tensor:
    scene = make_backdrop(frames)
    found = objects_by_depth(state, frames, by_material=True)
    layers = [surface.make_layer(items, material, frames) for material, items in found]
    several = state.kind.shape[1] > 1
    if several:
        for layer in layers:
            casters = (surface.find_caster(layer, other.items, frames) for other in layers)
            layer.casters = [c for c in casters if c is not None]
    h, w, device = frames.height, frames.width, frames.eye.device
    out = torch.empty(len(frames), h, w, 3, dtype=torch.uint8, device=device)
    n = len(layers)

    def draw(first: int, last: int, parts: list[slice]) -> None:
        count = (last - first) * h * w
        buffer = torch.empty(3, count + 1, device=device)  # one pixel more, for what falls outside
        buffer[:, :count] = paint_backdrop(scene, slice(first, last), w)
        _darken(buffer, layers, parts[:n], first, frames, scene)
        depth = torch.full((surface.SAMPLES, count + 1), torch.inf, device=device) if several else None
        for layer, part in zip(layers, parts[n:], strict=True):
            if part.start < part.stop:
                _blend(buffer, depth, layer, part, first, frames)
        pixels = buffer[:, :count].mul_(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8)
        out[first:last] = pixels.view(3, last - first, h, w).permute(1, 2, 3, 0)

    _for_each(draw, _chunks(frames, [x.shadow for x in layers] + [x.tiles for x in layers]), threads)
    return out.view(state.centre.shape[0], -1, h, w, 3)


def _darken(
    buffer: Tensor, layers: list[Layer], parts: list[slice], first: int, frames: Frames, scene: Backdrop
) -> None:
    """Draws the shadows on the ground into the buffer; where several fall on one spot, the deepest counts."""
    spare = buffer.shape[1] - 1
    busy = [(x, p) for x, p in zip(layers, parts, strict=True) if p.start < p.stop]
    taken = torch.zeros(spare + 1, device=buffer.device) if len(busy) > 1 else None
    for layer, part in busy:
        loss = surface.cast_shadow(layer, part, frames, scene).view(-1)
        index = pixel_index(layer.shadow, part, first, frames, spare)
        share = scene.dark[layer.shadow.frame[part]].T.repeat_interleave(TILE * TILE, 1)  # (3, k * TILE^2)
        if taken is not None:  # what is left after all shadows so far, relative to what was left before
            before = taken.index_select(0, index)
            loss = torch.maximum(before, loss)
            taken.index_copy_(0, index, loss)
            keep = (1 - share * loss) / (1 - share * before)
        else:
            keep = 1 - share * loss
        buffer.index_copy_(1, index, buffer.index_select(1, index).mul_(keep))


def _blend(buffer: Tensor, depth: Tensor | None, layer: Layer, part: slice, first: int, frames: Frames) -> None:
    """Draws the objects of a layer over the buffer, behind what is already nearer by depth (S, pixels) in metres."""
    index = pixel_index(layer.tiles, part, first, frames, buffer.shape[1] - 1)
    k = part.stop - part.start
    limit = None
    if depth is not None:
        old = depth.index_select(1, index)  # (S, k * TILE^2)
        limit = old.view(-1, k, TILE * TILE).transpose(0, 1).reshape(k, -1)
    drawn = surface.draw_layer(layer, part, frames, limit)
    opacity = layer.items.opacity[layer.tiles.item[part], None]
    if depth is not None and limit is not None:
        new = torch.where(opacity >= SEEN, torch.minimum(limit, drawn.depth), limit)
        depth.index_copy_(1, index, new.view(k, -1, TILE * TILE).transpose(0, 1).reshape(depth.shape[0], -1))
    keep, colour = 1 - (opacity * drawn.cover).view(-1), (opacity * drawn.colour).view(3, -1)
    buffer.index_copy_(1, index, torch.addcmul(colour, buffer.index_select(1, index), keep))


def render(state: SceneState, *, device: torch.device | str | None = None) -> Rendered:
    """Frames with depth and instance masks of the scenes. Deterministic; every device gives the same, up to rounding.

    Args:
        state: B clips of T frames.
        device: where to draw; default: where the state is.

    Raises:
        ValueError: when a camera is rolled, or a picture or letter has no RGBA image.
    """
    if device is not None:
        state = state.to(device)
    with exact_arithmetic(state.centre.device) as threads:
        frames = unroll(state)
        depth, mask = _measure(state, frames, threads)
        shape = (*state.centre.shape[:2], state.height, state.width)
        return Rendered(_paint(state, frames, threads), depth.view(shape), mask.view(shape))


def _measure(state: SceneState, frames: Frames, threads: int) -> tuple[Tensor, Tensor]:
    """Depth (F, H, W) and mask (F, H, W) at pixel centres."""
    h, w, device = frames.height, frames.width, frames.eye.device
    ground, _ = ground_depth(frames, torch.arange(h, device=device) + 0.5)
    depth = ground[:, :, None].expand(-1, -1, w).contiguous()
    mask = torch.where(depth.isinf(), -1, 0).to(torch.int8)
    points = sample_points(CENTRE, device)
    found = [items for _, items in objects_by_depth(state, frames, by_material=False)]
    tiles = [cut(items.box, items.frame) for items in found]

    def measure(first: int, last: int, parts: list[slice]) -> None:
        z, ids = _padded(depth[first:last]), _padded(mask[first:last])
        for items, tile, part in zip(found, tiles, parts, strict=True):
            if part.start < part.stop:
                index = pixel_index(tile, part, first, frames, len(z) - 1)
                old_z, old_id = z[index], ids[index]
                t, hit = _first_hit(items, tile, part, frames, points)
                nearer = hit & (t < old_z)
                z.index_copy_(0, index, torch.where(nearer, t, old_z))
                label = (items.index[tile.item[part]] + 1).to(torch.int8).repeat_interleave(TILE * TILE)
                ids.index_copy_(0, index, torch.where(nearer, label, old_id))
        depth[first:last] = z[:-1].view(-1, h, w)
        mask[first:last] = ids[:-1].view(-1, h, w)

    _for_each(measure, _chunks(frames, tiles), threads)
    return depth, mask


def _padded(plane: Tensor) -> Tensor:
    """All pixels in a row, and one more for what falls outside."""
    return torch.cat([plane.reshape(-1), plane.new_zeros(1)])


def _first_hit(items: Items, tiles: Tiles, part: slice, frames: Frames, points: Tensor) -> tuple[Tensor, Tensor]:
    """Depth and whether an object is met, (k * TILE^2,), at the pixel centres of some tiles."""
    item, frame = tiles.item[part], tiles.frame[part]
    matrix = tile_rays(items.to_object[item] @ frames.rays[frame], tiles.corner[part])
    o, d = items.local(item, frames.eye[frame]), cast(matrix, points)
    ray = Ray(*(o[:, i, None] for i in range(3)), *d.unbind(1))
    span = items.span(ray, item, fine=True)
    solid = items.solid(ray, span, item) * items.opacity[item, None] >= SEEN
    return span.enter.view(-1), (solid & (span.enter > 0)).view(-1)
