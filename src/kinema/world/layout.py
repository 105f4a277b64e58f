"""Where objects stand so that what happens to them stays in the picture and nothing runs into anything by chance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from kinema.core.camera import DOLLY, FOCAL, LOOK_AT, ORBIT, PAN, RISE, TILT, ZOOM
from kinema.world.cameras import path_of
from kinema.world.dynamics import (
    GROW,
    SHRINK,
    direction_vector,
    travel_distance,
)
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec
from kinema.world.vocabulary import SIZES

GAP = 0.2  # metres that are kept between the surfaces of two objects
NEAR, FAR = -1.9, 2.4  # how near to and far from the camera objects may go, metres along the view
TAN_HALF_FOV = 0.3  # a little inside the field of view of the cameras
LOOKS = 24  # equal parts of the clip between which a camera with legs is asked what it sees


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the camera sees of the ground, in metres to the right of and along the first view."""

    camera: CameraSpec
    aspect: float  # width over height of the picture
    duration: float  # seconds

    @property
    def azimuth(self) -> float:
        return self.camera.azimuth

    def half_width(self, depth: float) -> float:
        """Half of the width that a still camera sees at `depth` metres beyond the point looked at."""
        return TAN_HALF_FOV * min(1.5, self.aspect) * (self.camera.distance + depth)

    def to_world(self, right: float, depth: float) -> tuple[float, float]:
        c, s = math.cos(self.azimuth), math.sin(self.azimuth)
        return round(right * c - depth * s, 4), round(right * s + depth * c, 4)

    def kept(self, right: float, depth: float, radius: float, span: tuple[float, float]) -> float:
        """The smallest margin of a ball that rests from one time to another.

        A named move goes one way, so its ends tell; a camera with legs is followed all the way.
        """
        if not self.camera.legs:
            return min(self.margin(right, depth, radius, time) for time in span)
        first, last = (time / self.duration * LOOKS if self.duration else 0.0 for time in span)
        looks = self.looks[math.floor(first) : math.ceil(last) + 1]
        return min(self.seen(right, depth, radius, *look) for look in looks)

    @cached_property
    def looks(self) -> list[tuple[float, list[list[float]]]]:
        """Focal length over the frame height and pose of the camera at `LOOKS` + 1 even times."""
        zoomed, poses = path_of(self.camera, LOOKS + 1)
        return list(zip((FOCAL * zoomed).tolist(), poses.tolist(), strict=True))

    def seen(self, right: float, depth: float, radius: float, focal: float, pose: list[list[float]]) -> float:
        """As `margin`, for an exact pose."""
        point = (*self.to_world(right, depth), radius, 1.0)
        across, down, level = (sum(a * b for a, b in zip(row, point, strict=True)) for row in pose[:3])
        if level <= 0.5:
            return -1.0
        return min(
            0.5 * self.aspect - focal * (abs(across) + radius / 3) / level,
            0.5 - focal * (abs(down) + radius / 3) / level,
        )

    def margin(self, right: float, depth: float, radius: float, time: float) -> float:
        """How far inside the picture a resting ball is at a time, over the picture height; negative: outside.

        The same camera as `cameras.camera_path`, without soft onset and legs. A third of the ball may be cut off.
        """
        camera = self.camera
        word, _, side = camera.move.partition(" ")
        sign = -1.0 if side in ("right", "down", "out") else 1.0
        off = sign * camera.amount * (min(time / self.duration, 1.0) - 0.5) if self.duration else 0.0
        if word == "orbit":
            c, s = math.cos(off * ORBIT), math.sin(off * ORBIT)
            right, depth = right * c - depth * s, right * s + depth * c
        drop = camera.height - LOOK_AT[2]
        away = math.sqrt(camera.distance**2 - drop**2)
        level = (away + depth) * (1 - off * DOLLY if word == "dolly" else 1.0)
        if level <= 0.5:
            return -1.0
        height = camera.height + (off * RISE if word == "rise" else 0.0)
        pitch = -math.atan2(height - LOOK_AT[2], away) + (off * TILT if word == "tilt" else 0.0)
        focal = FOCAL * (ZOOM**off if word == "zoom" else 1.0)
        across = math.tan(math.atan2(right, level) + (off * PAN if word == "pan" else 0.0))
        up = math.tan(math.atan2(radius - height, level) - pitch)
        reach = radius / level / 3
        return min(0.5 * self.aspect - focal * (abs(across) + reach), 0.5 - focal * (abs(up) + reach))


@dataclass
class Sweep:
    """The places (right, depth) that an object passes, seen from its start, with times, and its largest half extent."""

    points: list[tuple[float, float]]
    times: list[tuple[float, float]]  # from when to when it is at each point, seconds
    radius: float
    high: bool  # whether it starts in the air


def sweep(index: int, thing: ObjectSpec, events: Sequence[EventSpec], duration: float) -> Sweep:
    """Corners of the path of one object: a path is a chain of straight pieces."""
    x = y = since = 0.0
    scale, largest = 1.0, 1.0
    points: list[tuple[float, float]] = [(0.0, 0.0)]
    times: list[tuple[float, float]] = []
    for i, event in enumerate(events):
        if event.subject != index:
            continue
        if event.direction:
            stops = any(e.action == "stop" and e.subject == index for e in events[i + 1 : i + 2])
            length = event.amount * travel_distance(event.end - event.start, event.direction) * (1.6 if stops else 1.0)
            dx, dy = direction_vector(event.direction, 0.0)
            x, y = x + dx * length, y + dy * length
            times.append((since, event.start))
            points.append((x, y))
            since = event.end
        scale *= {"grow": GROW, "shrink": SHRINK}.get(event.action, 1.0) ** event.amount
        largest = max(largest, scale)
    times.append((since, duration))
    high = any(e.action == "fall" and e.subject == index for e in events)
    return Sweep(points, times, SIZES[thing.size] * largest, high)


def place(
    rng: random.Random, objects: Sequence[ObjectSpec], events: Sequence[EventSpec], layout: Layout, slack: float = 0.0
) -> list[ObjectSpec] | None:
    """The objects with positions, or None when they do not fit; `slack` picture heights outside are let pass."""
    sweeps = [sweep(i, thing, events, layout.duration) for i, thing in enumerate(objects)]
    pair = next(((e.subject, e.target, e.action) for e in events if e.target is not None), None)
    placed: dict[int, list[tuple[float, float]]] = {}  # object -> world path in (right, depth)
    for index in range(len(objects)):
        if index in placed:
            continue
        if pair and index in pair[:2]:
            if not place_pair(rng, pair, sweeps, layout, placed):
                return None
            continue
        if not place_one(rng, index, sweeps, layout, placed, slack):
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
    slack: float,
) -> bool:
    path, times, radius = sweeps[index].points, sweeps[index].times, sweeps[index].radius
    low_x, high_x = min(p[0] for p in path), max(p[0] for p in path)
    low_y, high_y = min(p[1] for p in path), max(p[1] for p in path)
    alone, still = len(sweeps) == 1, len(path) == 1
    near, far = (-1.0, 1.6) if still else (NEAR, FAR)
    if sweeps[index].high:
        near = 0.0  # seen from farther off, more of the air is in the picture
    best, best_margin = None, (-0.12 if alone else -0.03) - slack  # further outside than this is not accepted
    for _ in range(30):
        first, last = near - low_y, far - high_y
        if first > last:  # longer than the stage is deep: centred
            first = last = (first + last) / 2
        y = rng.uniform(first, last)
        middle = -(low_x + high_x) / 2
        width = 0.5 if alone and not layout.camera.legs else 1.8
        x = middle + rng.uniform(-width, width)
        moved = [(x + px, y + py) for px, py in path]
        margin = min(layout.kept(*at, radius, span) for at, span in zip(moved, times, strict=True))
        if margin > best_margin and all(apart(moved, radius, o, sweeps[j].radius) for j, o in placed.items()):
            best, best_margin = moved, margin
            if margin >= 0:
                break
    if best is None:
        return False
    placed[index] = best
    return True


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
    if action == "push" and r1 < 0.85 * r2:
        return False  # a light thing hardly moves a heavy one
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
            gap = r1 + r2 + rng.uniform(1.0, 1.4)
            x, y = side * rng.uniform(-0.1, 0.3), rng.uniform(-0.4, 1.2)
            dx, dy = side * math.cos(tilt), math.sin(tilt)
            start = (x - dx * gap, y - dy * gap)
            path = [start, (x, y)]
            rest = [(x, y), (x + dx, y + dy)]
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
    for (x0, y0), (x1, y1) in pairwise(path):
        steps = max(1, math.ceil(math.hypot(x1 - x0, y1 - y0) / 0.25))
        points += [(x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps) for k in range(1, steps + 1)]
    return points
