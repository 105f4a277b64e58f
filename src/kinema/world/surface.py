"""How surfaces look: one layer of objects of one kind and material, its light, patterns, shine and shadows.

Light is Lambert's: colour = albedo * (ambient * (0.8 + 0.2 up) + direct * max(0, normal . sun)). Because that is
linear in a few numbers of each ray, those are averaged over the rays of a pixel first and coloured afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kinema.world import figure, look, shapes
from kinema.world.backdrop import Backdrop, Frames
from kinema.world.shapes import Ray, Span
from kinema.world.tiles import (
    SMOOTH,
    TILE,
    Items,
    Tiles,
    cast,
    corners,
    cut,
    sample_points,
    screen_box,
    tile_rays,
)

SHADOW_EDGE = 0.1  # width of the soft edge of the shadow of a convex object, in its half extents
CONVEX = ("ball", "cube", "cylinder", "cone")
GLOSS = 50.0  # exponent of the highlight (Blinn, 1977)
HIGHLIGHT = 0.9
MIRROR = 0.26  # share of what a shiny surface reflects
SAMPLES = len(SMOOTH)


@dataclass
class Caster:
    """Objects that may shade those of a layer, at most one for each."""

    items: Items
    row: Tensor  # (M,) int64 row of `items` for each row of the layer, -1 where there is none


@dataclass
class Layer:
    """Objects of one kind and material, at most one in each frame, ready to be drawn."""

    material: str
    items: Items
    tiles: Tiles
    rays: Tensor  # (K, 3, 3) tile coordinates -> direction in the frame of the shape
    origin: Tensor  # (K, 3) the eye in the frame of the shape
    axes: Tensor  # (K, 6) direction to the sun, and up, in the frame of the shape
    shade: Tensor  # (3, K, P, 2) colour of each part of the surface under ambient and under direct light
    shine: Tensor  # (3, K, 3) reflected ground, reflected sky, highlight; only used when shiny
    shadow: Tiles
    shadow_rays: Tensor  # (Ks, 3, 3)
    casters: list[Caster] = field(default_factory=list)


def second_tint(colour: Tensor) -> Tensor:
    """The other colour (M, 3) of stripes and checks: pale on dark colours, dark on light ones."""
    grey = colour @ torch.tensor([0.30, 0.59, 0.11], device=colour.device)
    return torch.where(grey[:, None] > 0.55, colour * 0.32, colour * 0.22 + 0.72)


def parts(items: Items, material: str) -> Tensor:
    """Colours (M, P, 3) of the parts of a surface, in the order in which `weights` gives their shares."""
    first, device = items.colour, items.colour.device
    if items.kind == "picture":
        return torch.eye(3, device=device).expand(len(items), 3, 3)
    tints = [first, second_tint(first)] if material in ("striped", "checked") else [first]
    if items.kind == "figure":
        for colour in (figure.SKIN_COLOUR, figure.TROUSER_COLOUR):
            tints.append(torch.tensor(colour, device=device).expand_as(first))
    return torch.stack(tints, 1)


def weights(
    layer: Layer, item: Tensor, at: tuple[Tensor, Tensor, Tensor], limb: figure.Nearest | None, rgba: Tensor | None
) -> list[Tensor | None]:
    """Shares of the parts of the surface at points (K, R); None stands for 1."""
    if layer.items.kind == "picture":
        assert rgba is not None
        return list((rgba[:3] / rgba[3].clamp_min(1e-4)).unbind(0))
    shares: list[Tensor | None] = [None]
    if layer.material in ("striped", "checked"):
        u, v = (9 * limb.along, 3 * limb.normal[0]) if limb else shapes.coordinates(layer.items.kind, *at)
        cell = u.floor() + v.floor() if layer.material == "checked" else u.floor()
        other = cell - 2 * (cell * 0.5).floor()
        shares = [1 - other, other]
    if limb is not None:
        group = torch.tensor(figure.GROUP, device=limb.part.device)[limb.part]
        cloth = (group == figure.CLOTH).to(at[0].dtype)
        shares = [cloth if s is None else cloth * s for s in shares]
        shares += [(group == g).to(at[0].dtype) for g in (figure.SKIN, figure.TROUSERS)]
    return shares


def make_layer(items: Items, material: str, frames: Frames) -> Layer:
    """Precomputes what each tile needs."""
    light = look.light_table(items.centre.device)
    sky, every = frames.sky[items.frame], torch.arange(len(items), device=items.centre.device)
    sun = light["sun"][sky]
    tiles = cut(items.box, items.frame)
    axes = torch.cat([items.turn(every, sun), items.to_object[:, :, 2] * items.size[:, None]], -1)
    colours = parts(items, material)
    shade = torch.stack([colours * light["ambient"][sky, None], colours * light["direct"][sky, None]], -1)
    base, _ = look.ground_table(sky.device)
    level = (light["ambient"] + light["direct"] * light["sun"][:, 2:])[sky]
    above = 0.5 * (light["horizon"][sky] + light["zenith"][sky])
    shine = torch.stack([base[frames.ground[items.frame]] * level, above, light["direct"][sky] * HIGHLIGHT], -1)
    floor = corners(items)
    floor = floor - floor[..., 2:] / sun[:, None, 2:] * sun[:, None]
    shadow = cut(screen_box(floor, frames.camera[items.frame], frames.height, frames.width), items.frame)
    rays = items.to_object @ frames.rays[items.frame]
    return Layer(
        material=material,
        items=items,
        tiles=tiles,
        rays=tile_rays(rays[tiles.item], tiles.corner),
        origin=items.local(every, frames.eye[items.frame])[tiles.item],
        axes=axes[tiles.item],
        shade=shade[tiles.item].permute(2, 0, 1, 3).contiguous(),
        shine=shine[tiles.item].permute(1, 0, 2).contiguous(),
        shadow=shadow,
        shadow_rays=tile_rays(rays[shadow.item], shadow.corner),
    )


def find_caster(layer: Layer, others: Items, frames: Frames) -> Caster | None:
    """Which of other objects stand between those of a layer and the sun; nothing where none does."""
    mine = layer.items
    row = torch.full((len(frames),), -1, dtype=torch.int64, device=mine.frame.device)
    row[others.frame] = torch.arange(len(others), device=row.device)
    row = row[mine.frame]
    sun = look.light_table(row.device)["sun"][frames.sky[mine.frame]]
    reach = torch.tensor(shapes.EXTENT[others.kind]).norm().item() * others.size[row]
    radius = torch.tensor(shapes.EXTENT[mine.kind]).norm().item() * mine.size
    apart = others.centre[row] - mine.centre
    along = (apart * sun).sum(-1)
    aside = (apart - along[:, None] * sun).norm(dim=-1)
    same = others.index[row] == mine.index
    clear = (row < 0) | same | (along < -reach - radius) | (aside > reach + radius)
    return None if clear.all() else Caster(others, torch.where(clear, -1, row))


def lose_sun(items: Items, ray: Ray, item: Tensor, soft: bool) -> Tensor:
    """How much of the sun the objects take from points on rays towards it, (K, R) in 0..1."""
    span = items.span(ray, item)
    loss = items.solid(ray, span, item)
    if soft and items.kind in CONVEX:
        loss = ((span.leave - span.enter) * (1 / SHADOW_EDGE)).clamp(0, 1)
    return torch.where(span.leave > 1e-3, loss, 0.0) * items.opacity[item, None]


def cast_shadow(layer: Layer, part: slice, frames: Frames, scene: Backdrop) -> Tensor:
    """How much of the sun each ground pixel of some shadow tiles loses: (k, TILE^2) in 0..1."""
    tiles, items = layer.shadow, layer.items
    item, frame = tiles.item[part], tiles.frame[part]
    points = sample_points(SMOOTH, item.device)
    d = cast(layer.shadow_rays[part], points)
    corner = tiles.corner[part, 1].to(points.dtype)
    rise = frames.rays[frame, 2, 1, None] * (corner[:, None] + points[1]) + frames.rays[frame, 2, 2, None]
    ground = rise < -1e-6
    t = torch.where(ground, -frames.eye[frame, 2, None] / torch.where(ground, rise, -1.0), 0.0)
    eye = items.local(item, frames.eye[frame])
    sun = items.turn(item, look.light_table(item.device)["sun"][frames.sky[frame]])
    ray = Ray(*(eye[:, i, None] + t * d[:, i] for i in range(3)), *(sun[:, i, None].expand_as(t) for i in range(3)))
    return mean_samples(torch.where(ground, lose_sun(items, ray, item, soft=True), 0.0))


def shade_others(layer: Layer, part: slice, span: Span, frames: Frames, points: Tensor) -> Tensor:
    """Share of the sun (k, R) that other objects leave to the rays of some tiles."""
    left = torch.ones_like(span.enter)
    item, frame = layer.tiles.item[part], layer.tiles.frame[part]
    for caster in layer.casters:
        some = (caster.row[item] >= 0).nonzero()[:, 0]
        if not len(some):
            continue
        row, at = caster.row[item[some]], frame[some]
        rays = tile_rays(caster.items.to_object[row] @ frames.rays[at], layer.tiles.corner[part][some])
        d, eye = cast(rays, points), caster.items.local(row, frames.eye[at])
        sun = caster.items.turn(row, look.light_table(row.device)["sun"][frames.sky[at]])
        t = span.enter[some]
        start = (eye[:, i, None] + t * d[:, i] for i in range(3))
        ray = Ray(*start, *(sun[:, i, None].expand_as(t) for i in range(3)))
        left[some] *= 1 - lose_sun(caster.items, ray, row, soft=False)
    return left


def mean_samples(x: Tensor) -> Tensor:
    """(k, SAMPLES * TILE^2) -> (k, TILE^2)."""
    return x.view(-1, SAMPLES, TILE * TILE).mean(1)


@dataclass
class Drawn:
    """What some tiles look like: coverage (k, TILE^2), colour times coverage (3, k, TILE^2), and depths."""

    cover: Tensor
    colour: Tensor
    depth: Tensor  # (k, SAMPLES * TILE^2) metres; inf for a miss


def draw_layer(layer: Layer, part: slice, frames: Frames, limit: Tensor | None) -> Drawn:
    """Casts the rays of some tiles; hits farther than limit (k, SAMPLES * TILE^2) in metres do not count."""
    points = sample_points(SMOOTH, layer.origin.device)
    item = layer.tiles.item[part]
    d, o = cast(layer.rays[part], points), layer.origin[part]
    ray = Ray(*(o[:, i, None] for i in range(3)), *d.unbind(1))
    span = layer.items.span(ray, item)
    at = ray.at(span.enter)
    rgba, limb = None, None
    hit = (span.leave > span.enter) & (span.enter > 0)
    if limit is not None:
        hit &= span.enter < limit
    solid = hit.to(d.dtype)
    if layer.items.atlas is not None:
        rgba = layer.items.rgba(item, at[0], at[2])
        solid = solid * rgba[3]
    if layer.items.limbs is not None:
        limb = figure.nearest_part(layer.items.limbs[item], *at)
        n = limb.normal
    else:
        n = shapes.normal(layer.items.kind, *at)
    axis = layer.axes[part, :, None]
    facing = n[0] * axis[:, 0] + n[1] * axis[:, 1] + n[2] * axis[:, 2]
    facing = facing.abs().clamp_min(0.45) if layer.items.atlas is not None else facing.clamp_min_(0)
    upward = n[0] * axis[:, 3] + n[1] * axis[:, 4] + n[2] * axis[:, 5]
    if layer.casters:
        facing = facing * shade_others(layer, part, span, frames, points)
    ambient = torch.where(hit, 0.80 + 0.20 * upward, 0.0) * solid
    direct = torch.where(hit, facing, 0.0) * solid
    shade, colour = layer.shade[:, part], torch.zeros((), device=d.device)
    for p, share in enumerate(weights(layer, item, at, limb, rgba)):
        a, b = (ambient, direct) if share is None else (ambient * share, direct * share)
        colour = colour + shade[:, :, p, :1] * mean_samples(a) + shade[:, :, p, 1:] * mean_samples(b)
    cover = mean_samples(solid)
    if layer.material == "shiny":
        colour = colour * (1 - MIRROR) + _reflect(layer.shine[:, part], axis, n, d, solid, direct > 0)
    return Drawn(cover, colour, torch.where(hit, span.enter, torch.inf))


def _reflect(shine: Tensor, axis: Tensor, n: tuple[Tensor, ...], d: Tensor, solid: Tensor, lit: Tensor) -> Tensor:
    """Colour (3, k, TILE^2) that a shiny surface adds: ground and sky mirrored in it, and the highlight of the sun."""
    inv = (d[:, 0] * d[:, 0] + d[:, 1] * d[:, 1] + d[:, 2] * d[:, 2]).rsqrt()
    v = [d[:, i] * inv for i in range(3)]
    back = 2 * (v[0] * n[0] + v[1] * n[1] + v[2] * n[2])
    r = [v[i] - back * n[i] for i in range(3)]
    rise = r[0] * axis[:, 3] + r[1] * axis[:, 4] + r[2] * axis[:, 5]
    sky = (rise * 2 + 0.5).clamp(0, 1)
    half = [axis[:, i] - v[i] for i in range(3)]
    length = (half[0] * half[0] + half[1] * half[1] + half[2] * half[2]).clamp_min(1e-9).rsqrt()
    spot = ((half[0] * n[0] + half[1] * n[1] + half[2] * n[2]) * length).clamp(0, 1).pow(GLOSS)
    sky, spot = torch.where(solid > 0, sky * solid, 0.0), torch.where(lit, spot * solid, 0.0)
    above, cover = mean_samples(sky), mean_samples(solid)
    mirrored = shine[:, :, :1] * (cover - above) + shine[:, :, 1:2] * above
    return MIRROR * mirrored + shine[:, :, 2:] * mean_samples(spot)
