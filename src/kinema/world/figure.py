"""A person made of capsules: limbs from four swing angles, and where rays meet them.

In the frame of the shape the figure is 2 high, stands on z = -1, looks along -y, and its left is +x. Poses are
(left arm, right arm, left leg, right leg) in radians, 0 hanging down, positive swinging forward; an arm above the
shoulder also spreads out sideways, so that waving is seen from the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.world.shapes import Ray, Span

PARTS = ("torso", "head", "left arm", "right arm", "left leg", "right leg")
RADII = (0.23, 0.19, 0.085, 0.085, 0.115, 0.115)
CLOTH, SKIN, TROUSERS = 0, 1, 2
GROUP = (CLOTH, SKIN, CLOTH, CLOTH, TROUSERS, TROUSERS)  # what each part wears
SKIN_COLOUR = (0.93, 0.74, 0.58)
TROUSER_COLOUR = (0.24, 0.25, 0.33)

_SHOULDER, _HIP = (0.29, 0.0, 0.44), (0.125, 0.0, -0.12)
_ARM, _LEG = 0.54, 0.765


def limb_frames(pose: Tensor) -> Tensor:
    """Rotations (M, 6, 3, 3) of the parts of figures with poses (M, 4) against hanging straight down."""
    frames = torch.eye(3, dtype=pose.dtype, device=pose.device).repeat(len(pose), len(PARTS), 1, 1)
    for i, swing in enumerate(pose.unbind(-1)):
        side = 1.0 if i % 2 == 0 else -1.0
        splay = 0.16 + 0.55 * (swing.abs() - 1.0).clamp(0, 1) if i < 2 else torch.zeros_like(swing)
        sa, ca, ss, cs = swing.sin(), swing.cos(), splay.sin(), splay.cos()
        across = torch.stack([cs, side * ss * sa, side * ss * ca], -1)
        axis = torch.stack([-side * ss, sa * cs, ca * cs], -1)
        frames[:, 2 + i] = torch.stack([across, torch.linalg.cross(axis, across), axis], -1)
    return frames


def limbs(pose: Tensor) -> Tensor:
    """End points (M, 6, 2, 3) of the capsules of figures with poses (M, 4); joints first."""
    points = pose.new_zeros(len(pose), len(PARTS), 2, 3)
    points[:, 0] = pose.new_tensor([[0.0, 0.0, 0.38], [0.0, 0.0, -0.06]])
    points[:, 1] = pose.new_tensor([[0.0, 0.0, 0.81], [0.0, 0.0, 0.79]])
    down = -limb_frames(pose)[..., 2]  # (M, 6, 3)
    for i in range(2, len(PARTS)):
        side = pose.new_tensor([1.0 if i % 2 == 0 else -1.0, 1.0, 1.0])
        points[:, i, 0] = side * pose.new_tensor(_SHOULDER if i < 4 else _HIP)
        points[:, i, 1] = points[:, i, 0] + (_ARM if i < 4 else _LEG) * down[:, i]
    return points


def _dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _ends(points: Tensor, part: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """One end (three tensors (K, 1)) of a limb and the way to its other end."""
    a, b = points[:, part, 0, :, None], points[:, part, 1, :, None]
    return a.unbind(1), (b - a).unbind(1)


def capsule_entry(ray: Ray, a: tuple[Tensor, ...], ba: tuple[Tensor, ...], radius: float) -> Tensor:
    """Ray parameter at which a capsule is entered; inf for a miss. After I. Quilez, "capsule intersection", 2016."""
    d = (ray.dx, ray.dy, ray.dz)
    oa = (ray.ox - a[0], ray.oy - a[1], ray.oz - a[2])
    dd, baba, bad, baoa, doa, oaoa = _dot(d, d), _dot(ba, ba), _dot(ba, d), _dot(ba, oa), _dot(d, oa), _dot(oa, oa)
    qa = (baba * dd - bad * bad).clamp_min(1e-9)
    qb = baba * doa - baoa * bad
    qc = baba * (oaoa - radius * radius) - baoa * baoa
    disc = qb * qb - qa * qc
    t = (-qb - disc.clamp_min(0).sqrt()) / qa
    along = baoa + t * bad
    far = along >= baba  # beyond the second end; else, with along <= 0, before the first
    # The sphere around the nearer end.
    end_d = torch.where(far, doa - bad, doa)
    end_c = torch.where(far, oaoa - 2 * baoa + baba, oaoa) - radius * radius
    cap = end_d * end_d - dd * end_c
    t_cap = (-end_d - cap.clamp_min(0).sqrt()) / dd
    body = (along > 0) & ~far
    inf = torch.full_like(t, torch.inf)
    return torch.where(disc < 0, inf, torch.where(body, t, torch.where(cap < 0, inf, t_cap)))


def figure_span(ray: Ray, points: Tensor) -> Span:
    """Ray (K, R) and figures with limbs (K, 6, 2, 3); `leave` only says hit or miss."""
    enter = torch.stack([capsule_entry(ray, *_ends(points, i), r) for i, r in enumerate(RADII)]).amin(0)
    miss = enter.isinf()
    enter = torch.where(miss, 0.0, enter)
    return Span(enter, torch.where(miss, enter, enter + 1.0))


@dataclass
class Nearest:
    """Which part each surface point (K, R) of a figure belongs to."""

    part: Tensor  # (K, R) int64, index into PARTS
    normal: tuple[Tensor, Tensor, Tensor]
    along: Tensor  # (K, R) distance from the joint along the limb, in half extents


def nearest_part(points: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Nearest:
    """Parts, unit normals and places along the limbs of surface points of figures with limbs (K, 6, 2, 3)."""
    best = torch.full_like(x, torch.inf)
    part, along = torch.zeros_like(x, dtype=torch.int64), torch.zeros_like(x)
    out = [torch.zeros_like(x) for _ in range(3)]
    for i, radius in enumerate(RADII):
        a, ba = _ends(points, i)
        pa = (x - a[0], y - a[1], z - a[2])
        baba = _dot(ba, ba)
        h = (_dot(pa, ba) / baba).clamp(0, 1)
        n = tuple(p - h * b for p, b in zip(pa, ba, strict=True))
        length = _dot(n, n).clamp_min(1e-12).sqrt()
        nearer = (length - radius) < best
        best = torch.where(nearer, length - radius, best)
        part = torch.where(nearer, i, part)
        along = torch.where(nearer, h * baba.sqrt(), along)
        out = [torch.where(nearer, c / length, o) for c, o in zip(n, out, strict=True)]
    return Nearest(part, (out[0], out[1], out[2]), along)
