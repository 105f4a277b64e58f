"""Where rays meet the shapes of the world, in closed form and batched.

Every shape lives in its own frame with half extent 1 (`ObjectSpec.size` metres in the world) and its centre at the
origin, so one ray has the same parameter t in the world and in the frame of the shape. Standing on the ground
with no rotation, every centre is `size` metres high:

- ball: radius 1.
- cube: |x|, |y|, |z| <= 1.
- cylinder: axis z, |z| <= 1, radius `CYLINDER_RADIUS`.
- cone: axis z, base of radius `CONE_RADIUS` at z = -1, apex at z = 1.
- ring: a torus with axis y, so that it stands like a wheel; outer radius 1, tube radius `RING_TUBE`.
- figure: a person of capsules who looks along -y; see `kinema.world.figure`.
- picture, letter: the flat rectangle y = 0, |z| <= 1, |x| <= width over height of the image.

Rays are six tensors of one broadcast shape, `Ray(ox, oy, oz, dx, dy, dz)`; planes of single coordinates are twice
as fast as a last dimension of 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CYLINDER_RADIUS = 0.8
CONE_RADIUS = 0.95
RING_TUBE = 0.28
RING_CORE = 1.0 - RING_TUBE  # radius of the circle in the middle of the tube

# Half sizes of a box around each shape, in its own frame.
EXTENT: dict[str, tuple[float, float, float]] = {
    "ball": (1.0, 1.0, 1.0),
    "cube": (1.0, 1.0, 1.0),
    "cylinder": (CYLINDER_RADIUS, CYLINDER_RADIUS, 1.0),
    "cone": (CONE_RADIUS, CONE_RADIUS, 1.0),
    "ring": (1.0, RING_TUBE, 1.0),
    "figure": (0.8, 0.9, 1.1),  # arms and legs at any angle
    "picture": (1.0, 0.0, 1.0),  # x times the aspect of the image
    "letter": (1.0, 0.0, 1.0),
}
FLAT = ("picture", "letter")

_SLOPE = CONE_RADIUS / 2.0  # radius gained per unit of height below the apex
_TINY = 1e-12


class Ray(NamedTuple):
    """Origins and directions in the frame of the shape; directions need not have length 1."""

    ox: Tensor
    oy: Tensor
    oz: Tensor
    dx: Tensor
    dy: Tensor
    dz: Tensor

    def at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The points at parameter t."""
        return self.ox + t * self.dx, self.oy + t * self.dy, self.oz + t * self.dz


class Span(NamedTuple):
    """Part of a ray inside a shape. It misses where `leave <= enter`; t is in units of the ray's direction."""

    enter: Tensor
    leave: Tensor


def _safe(d: Tensor) -> Tensor:
    """d moved away from 0, so that it can divide."""
    return torch.where(d.abs() < _TINY, torch.full_like(d, _TINY), d)


def _slab(o: Tensor, d: Tensor, half: float) -> Span:
    inv = _safe(d).reciprocal()
    mid, reach = -o * inv, inv.abs() * half
    return Span(mid - reach, mid + reach)


def ball_span(ray: Ray) -> Span:
    """Ray and unit sphere: t^2 d.d + 2 t o.d + o.o - 1 = 0."""
    a = ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz
    b = ray.ox * ray.dx + ray.oy * ray.dy + ray.oz * ray.dz
    c = ray.ox * ray.ox + ray.oy * ray.oy + ray.oz * ray.oz - 1.0
    disc = b * b - a * c
    inv = a.reciprocal()
    mid, half = -b * inv, disc.clamp_min(0).sqrt() * inv
    return Span(mid - half, mid + half)


def cube_span(ray: Ray) -> Span:
    """Ray and the cube |x|, |y|, |z| <= 1 (three slabs)."""
    x, y, z = _slab(ray.ox, ray.dx, 1.0), _slab(ray.oy, ray.dy, 1.0), _slab(ray.oz, ray.dz, 1.0)
    enter = torch.maximum(torch.maximum(x.enter, y.enter), z.enter)
    return Span(enter, torch.minimum(torch.minimum(x.leave, y.leave), z.leave))


def cylinder_span(ray: Ray) -> Span:
    """Ray and capped cylinder: the infinite cylinder cut by the slab |z| <= 1."""
    a = (ray.dx * ray.dx + ray.dy * ray.dy).clamp_min(_TINY)
    b = ray.ox * ray.dx + ray.oy * ray.dy
    c = ray.ox * ray.ox + ray.oy * ray.oy - CYLINDER_RADIUS**2
    disc, inv = b * b - a * c, a.reciprocal()
    mid, half = -b * inv, disc.clamp_min(0).sqrt() * inv
    cap = _slab(ray.oz, ray.dz, 1.0)
    enter = torch.maximum(mid - half, cap.enter)
    leave = torch.minimum(mid + half, cap.leave)
    return Span(enter, torch.where(disc > 0, leave, enter))


def cone_span(ray: Ray) -> Span:
    """Ray and capped cone: x^2 + y^2 = (slope * (1 - z))^2 for -1 <= z <= 1.

    With w = 1 - z, the double cone is inside where q(t) = a t^2 + 2 b t + c <= 0. For a > 0 that is the span
    between the roots (one nappe or the other); for a < 0 it is outside the roots, and the part with w >= 0
    belongs to the wanted nappe. The slab 0 <= w <= 2 removes the other nappe in both cases.
    """
    k = _SLOPE * _SLOPE
    ow, dw = 1.0 - ray.oz, -ray.dz
    a = ray.dx * ray.dx + ray.dy * ray.dy - k * dw * dw
    b = ray.ox * ray.dx + ray.oy * ray.dy - k * ow * dw
    c = ray.ox * ray.ox + ray.oy * ray.oy - k * ow * ow
    a = _safe(a)
    disc, inv = b * b - a * c, a.reciprocal()
    root = disc.clamp_min(0).sqrt() * inv.abs()
    mid = -b * inv
    near, far = mid - root, mid + root
    slab = _slab(ray.oz, ray.dz, 1.0)
    # a < 0: inside on (-inf, near] or [far, inf); the ray comes down the wanted nappe when it moves away from the apex.
    steep = a < 0
    deeper = dw > 0  # w grows along the ray: the wanted nappe is the later part
    low = torch.where(steep & ~deeper, slab.enter, torch.where(steep, far, near))
    high = torch.where(steep & deeper, slab.leave, torch.where(steep, near, far))
    enter, leave = torch.maximum(low, slab.enter), torch.minimum(high, slab.leave)
    return Span(enter, torch.where((disc > 0) | steep, leave, enter))


def ring_distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Signed distance to the torus."""
    q = (x * x + z * z).sqrt() - RING_CORE
    return (q * q + y * y).sqrt() - RING_TUBE


def ring_span(ray: Ray, steps: int = 16) -> Span:
    """Ray and torus by sphere tracing from its bounding ball cut by the slab |y| <= tube (Hart, 1996).

    `leave` only says hit (later than `enter`) or miss; how deep it lies behind `enter` measures how clear the hit is.
    """
    bound, slab = ball_span(ray), _slab(ray.oy, ray.dy, RING_TUBE)
    t = torch.maximum(bound.enter, slab.enter)
    end = torch.minimum(bound.leave, slab.leave)
    inv = (ray.dx * ray.dx + ray.dy * ray.dy + ray.dz * ray.dz).rsqrt()
    distance = ring_distance(*ray.at(t))
    for _ in range(steps):
        t = torch.addcmul(t, distance, inv)
        distance = ring_distance(*ray.at(t))
    hit = (distance < 0.01) & (t < end + 0.02 * inv)
    return Span(t, torch.where(hit, t + inv, t))


def sheet_span(ray: Ray, aspect: Tensor) -> Span:
    """Ray and the rectangle y = 0, |z| <= 1, |x| <= aspect; `leave` only says hit or miss."""
    t = -ray.oy / _safe(ray.dy)
    x, _, z = ray.at(t)
    hit = (x.abs() <= aspect) & (z.abs() <= 1.0)
    return Span(t, torch.where(hit, t + 1.0, t))


def coordinates(kind: str, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Surface coordinates (u, v) for patterns: stripes are cells of length 1 in u, checks cells in u and v.

    u goes around the axis of round shapes, an even number of cells, so that rolling and spinning are seen. Figures
    have theirs along the limbs (`figure.Nearest`).
    """
    turn = 1 / math.pi
    if kind == "cube":
        ax, ay, az = x.abs(), y.abs(), z.abs()
        on_x, on_z = (ax >= ay) & (ax >= az), (az > ax) & (az > ay)
        return 2 * torch.where(on_x, y, x), 2 * torch.where(on_z, y, z)
    if kind == "ring":
        q = (x * x + z * z).sqrt() - RING_CORE
        return 6 * turn * torch.atan2(z, x), 2 * turn * torch.atan2(y, q)
    if kind in ("ball", "cylinder", "cone"):
        cells = 3 if kind == "ball" else 4
        across = 2.5 * (x * x + y * y).sqrt() if kind == "cylinder" else 0.0
        return cells * turn * torch.atan2(y, x), 2 * z - across
    return 2 * x, 2 * z


def normal(kind: str, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outward unit normal at points on the surface of a shape."""
    if kind == "ball":
        return x, y, z
    if kind == "cube":
        ax, ay, az = x.abs(), y.abs(), z.abs()
        on_x = (ax >= ay) & (ax >= az)
        on_y = (ay > ax) & (ay >= az)
        on_z = ~(on_x | on_y)
        return on_x * x.sign(), on_y * y.sign(), on_z * z.sign()
    if kind == "cylinder":
        cap = z.abs() > 1.0 - 1e-4
        side = (~cap).to(x.dtype) / CYLINDER_RADIUS
        return x * side, y * side, cap * z.sign()
    if kind == "cone":
        base = z < -1.0 + 1e-4
        length = (1.0 + _SLOPE**2) ** -0.5
        side = (~base) * (x * x + y * y).clamp_min(_TINY).rsqrt() * length
        return x * side, y * side, torch.where(base, -1.0, _SLOPE * length)
    if kind == "ring":
        shrink = 1.0 - RING_CORE * (x * x + z * z).clamp_min(_TINY).rsqrt()
        nx, nz = x * shrink, z * shrink
        inv = (nx * nx + y * y + nz * nz).clamp_min(_TINY).rsqrt()
        return nx * inv, y * inv, nz * inv
    if kind in FLAT:
        return torch.zeros_like(x), torch.ones_like(x), torch.zeros_like(x)
    raise ValueError(f"kind is {kind!r}; use one of {', '.join(EXTENT)}")


SPANS = {"ball": ball_span, "cube": cube_span, "cylinder": cylinder_span, "cone": cone_span, "ring": ring_span}
