"""What is true about a clip: flow, tracks and boxes, computed from the geometry of its scene.

A visible surface point belongs to an object, the ground or the sky. It is carried by the motion, turn and scale of
its object (and of the limb, for a figure), or stays where it is; then the camera of the other frame projects it, and
a ray from that camera says whether anything stands in front of it. Patterns that move over a surface (the waves of
the water) are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world import figure
from kinema.world.backdrop import Frames, unroll
from kinema.world.render import SEEN, Rendered, exact_arithmetic, objects_by_depth
from kinema.world.shapes import EXTENT, Ray
from kinema.world.spec import SceneState
from kinema.world.tiles import Items
from kinema.world.vocabulary import KINDS

FAR = 1e5  # metres; where the sky is, for projection
SKIN = 0.03  # half extents by which a ray may stop short of the surface it aims at


@dataclass
class Flow:
    """Where each pixel goes from frame t to t + 1; B clips, T - 1 pairs of frames."""

    forward: Tensor  # (B, T-1, H, W, 2) float32 pixels: x to the right, y down
    visible: Tensor  # (B, T-1, H, W) bool: seen in frame t + 1 too, neither hidden nor outside


@dataclass
class Anchors:
    """Points fixed to things, Q in all."""

    clip: Tensor  # (Q,) int64
    thing: Tensor  # (Q,) int64: -1 the world (points in metres), else an object (points in its own frame)
    point: Tensor  # (Q, 3)
    part: Tensor  # (Q,) int64, the part of a figure (figure.PARTS); 0 elsewhere
    inside: Tensor  # (Q,) bool: inside the object, whose own surface then does not hide it


@dataclass
class Tracks:
    """Paths of anchors through their clips."""

    world: Tensor  # (Q, T, 3) metres
    pixel: Tensor  # (Q, T, 2) x, y in pixels, pixel centres at half integers
    depth: Tensor  # (Q, T) metres along the view direction
    visible: Tensor  # (Q, T) bool: in front of the camera, in the frame, not hidden, not transparent


def project(frames: Frames, frame: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (K, R, 2) and depths (K, R) of world points (K, R, 3) in frames (K,)."""
    camera = frames.camera[frame]
    p = points @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]
    z = p[..., 2]
    return p[..., :2] / torch.where(z.abs() < 1e-6, 1e-6, z)[..., None], z


def in_frame(frames: Frames, pixel: Tensor, depth: Tensor) -> Tensor:
    """Which pixels (..., 2) at depths (...) lie in the picture and in front of the camera."""
    x, y = pixel.unbind(-1)
    return (depth > 0) & (x >= 0) & (x < frames.width) & (y >= 0) & (y < frames.height)


def hidden(
    objects: list[Items], frames: Frames, frame: Tensor, targets: Tensor, own: Tensor, ignore_own: Tensor | None = None
) -> Tensor:
    """Whether an object stands between the cameras of frames (K,) and world points (K, R, 3): (K, R) bool.

    Args:
        objects: all visible objects.
        own: (K, R) int64 object that each point lies on, -1 for none.
        ignore_own: (K, R) bool, points that their own object cannot hide.
    """
    blocked = torch.zeros_like(own, dtype=torch.bool)
    for items in objects:
        table = torch.full((len(frames),), -1, dtype=torch.int64, device=frame.device)
        table[items.frame] = torch.arange(len(items), device=frame.device)
        some = (table[frame] >= 0).nonzero()[:, 0]
        if not len(some):
            continue
        item, at = table[frame[some]], frame[some]
        eye = frames.eye[at]
        o = items.local(item, eye)
        d = (targets[some] - eye[:, None]) @ items.to_object[item].transpose(1, 2)  # (k, R, 3), t = 1 at the target
        ray = Ray(*(o[:, i, None].expand_as(d[..., i]) for i in range(3)), *(x.contiguous() for x in d.unbind(-1)))
        span = items.span(ray, item, fine=True)
        solid = items.solid(ray, span, item) * items.opacity[item, None] >= SEEN
        mine = own[some] == items.index[item][:, None]
        reach = 1 - torch.where(mine, SKIN / d.norm(dim=-1).clamp_min(1e-6), 1e-4)
        hit = solid & (span.enter > 1e-4) & (span.enter < reach)
        if ignore_own is not None:
            hit &= ~(mine & ignore_own[some])
        blocked[some] |= hit
    return blocked


def _to_world(state: SceneState, anchors: Anchors, time: Tensor) -> Tensor:
    """World points (Q, 3) of anchors at frames time (Q,)."""
    clip, thing = anchors.clip, anchors.thing.clamp_min(0)
    point = anchors.point
    limb = (state.kind[clip, thing] == KINDS.index("figure")) & (anchors.thing >= 0)
    if limb.any():  # anchors of figures are kept in the rest frame of their limb, from the joint
        pose = state.pose[clip[limb], time[limb], thing[limb]].float()
        rows, part = torch.arange(len(pose), device=pose.device), anchors.part[limb]
        turn, joint = figure.limb_frames(pose)[rows, part], figure.limbs(pose)[rows, part, 0]
        point = point.clone()
        point[limb] = joint + (turn @ point[limb][..., None])[..., 0]
    rotation, size = state.rotation[clip, time, thing].float(), state.size[clip, time, thing].float()
    moved = (rotation @ (point * size[:, None])[..., None])[..., 0] + state.centre[clip, time, thing].float()
    return torch.where((anchors.thing < 0)[:, None], anchors.point, moved)


def attach(state: SceneState, clip: Tensor, time: Tensor, thing: Tensor, world: Tensor) -> Anchors:
    """Anchors for world points (Q, 3) seen at frames time (Q,) on objects thing (Q,), -1 for ground and sky."""
    n = thing.clamp_min(0)
    rotation, size = state.rotation[clip, time, n].float(), state.size[clip, time, n].float()
    local = (rotation.transpose(1, 2) @ (world - state.centre[clip, time, n].float())[..., None])[..., 0]
    local = local / size.clamp_min(1e-9)[:, None]
    part = torch.zeros_like(thing)
    limb = (state.kind[clip, n] == KINDS.index("figure")) & (thing >= 0)
    if limb.any():
        pose = state.pose[clip[limb], time[limb], n[limb]].float()
        points, p = figure.limbs(pose), local[limb]
        chosen = figure.nearest_part(points, p[:, :1], p[:, 1:2], p[:, 2:]).part[:, 0]
        rows = torch.arange(len(pose), device=pose.device)
        turn = figure.limb_frames(pose)[rows, chosen]
        local[limb] = (turn.transpose(1, 2) @ (p - points[rows, chosen, 0])[..., None])[..., 0]
        part[limb] = chosen
    point = torch.where((thing < 0)[:, None], world, local)
    return Anchors(clip, thing, point, part, torch.zeros_like(thing, dtype=torch.bool))


def pixel_points(frames: Frames, frame: Tensor, pixel: Tensor, depth: Tensor) -> Tensor:
    """World points (Q, 3) seen in frames (Q,) at pixels (Q, 2) and depths (Q,) in metres; the sky is FAR away."""
    ones = torch.ones_like(depth)
    ray = (frames.rays[frame] @ torch.stack([pixel[:, 0], pixel[:, 1], ones], -1)[..., None])[..., 0]
    return frames.eye[frame] + ray * torch.where(depth.isinf(), FAR, depth)[:, None]


def flow(state: SceneState, rendered: Rendered) -> Flow:
    """Forward flow of every pixel centre, and where it holds.

    Args:
        state: the scenes.
        rendered: what `render(state)` returned.
    """
    with exact_arithmetic(state.centre.device):
        return _flow(state, rendered)


def _flow(state: SceneState, rendered: Rendered) -> Flow:
    frames = unroll(state)
    clips, count, h, w = rendered.mask.shape
    device = rendered.mask.device
    objects = [items for _, items in objects_by_depth(state, frames, by_material=False)]
    y, x = torch.meshgrid(torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij")
    grid = torch.stack([x, y], -1).view(-1, 2)
    forward = torch.empty(clips, count - 1, h, w, 2, device=device)
    visible = torch.empty(clips, count - 1, h, w, dtype=torch.bool, device=device)
    for b in range(clips):
        for t in range(count - 1):
            now = torch.full((h * w,), b * count + t, device=device)
            mask = rendered.mask[b, t].view(-1).long()
            world = pixel_points(frames, now, grid, rendered.depth[b, t].view(-1))
            # The sky turns with the camera but does not come nearer: carry it along with the eye.
            world = torch.where((mask < 0)[:, None], world + (frames.eye[now + 1] - frames.eye[now]), world)
            thing = (mask - 1).clamp_min(-1)
            time = torch.full_like(now, t)
            anchors = attach(state, now // count, time, thing, world)
            moved = _to_world(state, anchors, time + 1)[None]
            pixel, depth = project(frames, now[:1] + 1, moved)
            lost = hidden(objects, frames, now[:1] + 1, moved, thing[None])[0]
            there = (state.opacity[b, t + 1][thing.clamp_min(0)] >= SEEN) | (thing < 0)
            forward[b, t] = (pixel[0] - grid).view(h, w, 2)
            visible[b, t] = (in_frame(frames, pixel, depth)[0] & ~lost & there).view(h, w)
    return Flow(forward, visible)


def centre_anchors(state: SceneState) -> Anchors:
    """The centres of all objects, clip by clip in order of the objects; padding is left out."""
    clip, thing = (state.kind >= 0).nonzero().unbind(-1)
    point = torch.zeros(len(clip), 3, device=clip.device)
    return Anchors(clip, thing, point, torch.zeros_like(thing), torch.ones_like(thing, dtype=torch.bool))


def surface_anchors(state: SceneState, rendered: Rendered, clip: Tensor, time: Tensor, pixel: Tensor) -> Anchors:
    """What is seen at pixels (Q, 2) int64 (x, y) of frames time (Q,) of clips (Q,), fixed to what it belongs to.

    Raises:
        ValueError: when a pixel shows the sky, which has no point to follow.
    """
    x, y = pixel.unbind(-1)
    mask, depth = rendered.mask[clip, time, y, x].long(), rendered.depth[clip, time, y, x]
    if (mask < 0).any():
        where = tuple(pixel[mask < 0][0].tolist())
        raise ValueError(f"pixel {where} shows the sky; choose pixels on the ground or on objects")
    frames = unroll(state)
    world = pixel_points(frames, clip * state.centre.shape[1] + time, pixel.float() + 0.5, depth)
    return attach(state, clip, time, mask - 1, world)


def track(state: SceneState, anchors: Anchors) -> Tracks:
    """Follows anchors through all frames of their clips."""
    with exact_arithmetic(state.centre.device):
        frames, count = unroll(state), state.centre.shape[1]
        objects = [items for _, items in objects_by_depth(state, frames, by_material=False)]
        world, pixels, depths, seen = [], [], [], []
        for t in range(count):
            time = torch.full_like(anchors.clip, t)
            frame = anchors.clip * count + t
            points = _to_world(state, anchors, time)[:, None]
            pixel, depth = project(frames, frame, points)
            lost = hidden(objects, frames, frame, points, anchors.thing[:, None], anchors.inside[:, None])
            there = state.opacity[anchors.clip, t, anchors.thing.clamp_min(0)] >= SEEN
            there = there | (anchors.thing < 0)
            world.append(points[:, 0])
            pixels.append(pixel[:, 0])
            depths.append(depth[:, 0])
            seen.append(in_frame(frames, pixel, depth)[:, 0] & ~lost[:, 0] & there)
        return Tracks(*(torch.stack(x, 1) for x in (world, pixels, depths, seen)))


def boxes_3d(state: SceneState) -> Tensor:
    """Corners (B, T, N, 8, 3) in metres of the boxes around all objects; x slowest, then y, then z. NaN for padding."""
    device = state.centre.device
    signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], device=device)
    half = torch.tensor([EXTENT[k] for k in KINDS], device=device)[state.kind.clamp_min(0)]  # (B, N, 3)
    for (clip, index), image in state.texture.items():
        half[clip, index, 0] *= image.shape[2] / image.shape[1]
    local = (signs * half[:, :, None])[:, None] * state.size[..., None, None]  # (B, T, N, 8, 3)
    world = local @ state.rotation.transpose(-1, -2).to(local.dtype) + state.centre[..., None, :]
    return torch.where((state.kind < 0)[:, None, :, None, None], torch.nan, world)


def boxes_2d(state: SceneState) -> Tensor:
    """Boxes (B, T, N, 4) in pixels (x0, y0, x1, y1) around the projected 3D boxes, hidden parts included.

    Not cut at the border of the frame; NaN for padding and for boxes that reach behind the camera.
    """
    with exact_arithmetic(state.centre.device):
        frames = unroll(state)
        corners = boxes_3d(state).flatten(0, 1)  # (F, N, 8, 3)
        every = torch.arange(len(frames), device=corners.device)
        pixel, depth = project(frames, every, corners.flatten(1, 2))
        pixel, depth = pixel.view(*corners.shape[:3], 2), depth.view(corners.shape[:3])
        box = torch.cat([pixel.amin(2), pixel.amax(2)], -1)
        box = torch.where((depth > 0.05).all(2)[..., None], box, torch.nan)
        return box.view(*state.size.shape, 4)


def mask_boxes(mask: Tensor, count: int) -> Tensor:
    """Boxes (B, T, N, 4) int64 (x0, y0, x1, y1), ends exclusive, around what is seen of `count` objects in a mask.

    All zero for an object that is not seen.
    """
    h, w = mask.shape[-2:]
    boxes = []
    for i in range(count):
        here = mask == i + 1
        columns, rows = here.any(-2), here.any(-1)
        x0, y0 = columns.int().argmax(-1), rows.int().argmax(-1)
        x1, y1 = w - columns.flip(-1).int().argmax(-1), h - rows.flip(-1).int().argmax(-1)
        box = torch.stack([x0, y0, x1, y1], -1)
        boxes.append(torch.where(here.flatten(-2).any(-1)[..., None], box, 0))
    return torch.stack(boxes, -2)
