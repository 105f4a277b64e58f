"""Where objects stand so that what happens to them stays in the picture and nothing runs into anything by chance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kinema.world.dynamics import (
    GROW,
    PUSH_CONTACT,
    SHRINK,
    direction_vector,
    travel_distance,
)
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec
from kinema.world.vocabulary import SIZES

GAP = 0.2  # metres that are kept between the surfaces of two objects
NEAR, FAR = -1.9, 2.4  # how near to and far from the camera objects may go, metres along the view
TAN_HALF_FOV = 0.3  # a little inside the field of view of the cameras


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The part of the ground that the first camera sees: a wedge, in metres to the right of and along the view."""

    distance: float
    azimuth: float
    slope: float  # half width of the picture at one metre from the camera, metres

    @classmethod
    def of(cls, camera: CameraSpec, height: int, width: int) -> Layout:
        return cls(distance=camera.distance, azimuth=camera.azimuth, slope=TAN_HALF_FOV * min(1.5, width / height))

    def half_width(self, depth: float) -> float:
        """Half of the visible width at `depth` metres beyond the point looked at."""
        return self.slope * (self.distance + depth)

    def to_world(self, right: float, depth: float) -> tuple[float, float]:
        c, s = math.cos(self.azimuth), math.sin(self.azimuth)
        return round(right * c - depth * s, 4), round(right * s + depth * c, 4)


@dataclass
class Sweep:
    """The places (right, depth) that an object passes, seen from its start, and its largest half extent."""

    points: list[tuple[float, float]]
    radius: float


def sweep(index: int, thing: ObjectSpec, events: Sequence[EventSpec]) -> Sweep:
    """Corners of the path of one object: a path is a chain of straight pieces."""
    x = y = 0.0
    scale, largest = 1.0, 1.0
    points = [(0.0, 0.0)]
    for i, event in enumerate(events):
        if event.subject != index:
            continue
        if event.direction:
            stops = any(e.action == "stop" and e.subject == index for e in events[i + 1 : i + 2])
            length = travel_distance(event.end - event.start, event.direction) * (1.4 if stops else 1.0)
            dx, dy = direction_vector(event.direction, 0.0)
            x, y = x + dx * length, y + dy * length
            points.append((x, y))
        scale *= {"grow": GROW, "shrink": SHRINK}.get(event.action, 1.0)
        largest = max(largest, scale)
    return Sweep(points, SIZES[thing.size] * largest)


def place(
    rng: random.Random, objects: Sequence[ObjectSpec], events: Sequence[EventSpec], layout: Layout
) -> list[ObjectSpec] | None:
    """The objects with positions, or None when they do not fit."""
    sweeps = [sweep(i, thing, events) for i, thing in enumerate(objects)]
    pair = next(((e.subject, e.target, e.action) for e in events if e.target is not None), None)
    order = list(range(len(objects)))
    placed: dict[int, list[tuple[float, float]]] = {}  # object -> world path in (right, depth)
    for index in order:
        if index in placed:
            continue
        if pair and index in pair[:2]:
            if not place_pair(rng, pair, sweeps, layout, placed):
                return None
            continue
        if not place_one(rng, index, sweeps, layout, placed):
            return None
    return [
        replace(thing, position=layout.to_world(*placed[i][0]), heading=round(thing.heading + layout.azimuth, 4))
        for i, thing in enumerate(objects)
    ]


def place_one(
    rng: random.Random,
    index: int,
    sweeps: Sequence[Sweep],
    layout: Layout,
    placed: dict[int, list[tuple[float, float]]],
) -> bool:
    path, radius = sweeps[index].points, sweeps[index].radius
    low_x, high_x = min(p[0] for p in path), max(p[0] for p in path)
    low_y, high_y = min(p[1] for p in path), max(p[1] for p in path)
    still = len(path) == 1
    for _ in range(20):
        near, far = (-1.0, 1.6) if still else (NEAR, FAR)
        first, last = near - low_y, far - high_y
        if first > last:  # longer than the stage is deep: centred
            first = last = (first + last) / 2
        y = rng.uniform(first, last)
        # The narrowest place decides how far to the side the path may lie.
        limits = [(layout.half_width(y + py) - radius, px) for px, py in path]
        left = max(-half - px for half, px in limits)
        right = min(half - px for half, px in limits)
        middle = -(low_x + high_x) / 2
        if left > right:
            if right - left < -0.5:
                continue
            x = (left + right) / 2
        else:
            x = min(max(rng.triangular(left, right, min(max(middle, left), right)), left), right)
            if len(sweeps) == 1:  # alone on the stage: stay near the middle of the picture
                x = min(max(x, middle - 0.6), middle + 0.6)
        moved = [(x + px, y + py) for px, py in path]
        if all(apart(moved, radius, other, sweeps[j].radius) for j, other in placed.items()):
            placed[index] = moved
            return True
    return False


def place_pair(
    rng: random.Random,
    pair: tuple[int, int, str],
    sweeps: Sequence[Sweep],
    layout: Layout,
    placed: dict[int, list[tuple[float, float]]],
) -> bool:
    """Places the subject and the target of "circle" or "push", which belong together."""
    subject, target, action = pair
    r1, r2 = sweeps[subject].radius, sweeps[target].radius
    if max(r1, r2) > 0.75 or len(sweeps[subject].points) > 1 or len(sweeps[target].points) > 1:
        return False
    for _ in range(20):
        if action == "circle":
            x, y = rng.uniform(-0.4, 0.4), rng.uniform(-0.2, 0.9)
            ring = r1 + r2 + rng.uniform(0.35, 0.6)
            angle = rng.uniform(0, 2 * math.pi)
            start = (x + ring * math.cos(angle), y + ring * math.sin(angle))
            turns = [angle + 2 * math.pi * k / 8 for k in range(9)]
            path = [start] + [(x + ring * math.cos(a), y + ring * math.sin(a)) for a in turns]
            rest = [(x, y)]
        else:
            side = rng.choice((-1.0, 1.0))
            tilt = rng.uniform(-0.3, 0.3)
            gap = r1 + r2 + rng.uniform(1.1, 1.5)
            x, y = -side * rng.uniform(0.0, 0.3), rng.uniform(-0.4, 1.0)
            dx, dy = side * math.cos(tilt), math.sin(tilt)
            start = (x - dx * gap * PUSH_CONTACT * 2, y - dy * gap * PUSH_CONTACT * 2)
            path = [start, (x, y)]
            rest = [(x, y), (x + dx * 1.6, y + dy * 1.6)]
        both = [(path, r1), (rest, r2)]
        inside = all(abs(px) + r <= layout.half_width(py) for points, r in both for px, py in points)
        clear = all(apart(points, r, other, sweeps[j].radius) for points, r in both for j, other in placed.items())
        if inside and clear:
            placed[subject], placed[target] = path, rest
            return True
    return False


def apart(a: Sequence[tuple[float, float]], ra: float, b: Sequence[tuple[float, float]], rb: float) -> bool:
    """Whether two paths keep their distance, checked on points 0.25 m apart."""
    need = (ra + rb + GAP) ** 2
    return all((ax - bx) ** 2 + (ay - by) ** 2 >= need for ax, ay in densify(a) for bx, by in densify(b))


def densify(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    points = [path[0]]
    for (x0, y0), (x1, y1) in zip(path, path[1:], strict=False):
        steps = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / 0.25))
        points += [(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps) for k in range(1, steps + 1)]
    return points
