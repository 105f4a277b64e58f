"""Objects while they are simulated: their tracks over the frames of a clip, and how they stand and roll."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kinema.world import dynamics as dyn
from kinema.world.shapes import CYLINDER_RADIUS
from kinema.world.spec import EventSpec, ObjectSpec, SceneSpec
from kinema.world.vocabulary import COLOURS, KINDS, MATERIALS, SIZES

Array = NDArray[np.float64]
WHEELS = ("cylinder", "ring")  # roll about one axle only
ROLLERS = ("ball", "cylinder", "ring")


@dataclass(frozen=True, kw_only=True)
class Contact:
    """Something touches something at an exact time."""

    time: float  # seconds
    position: tuple[float, float, float]  # metres
    speed: float  # closing speed, m/s
    materials: tuple[str, str]  # material of the object, and the ground's name or the other object's material
    subject: int  # index into SceneSpec.objects
    target: int | None = None  # the other object, None for the ground
    size: float = 0.5  # half extent of the object at that time, metres


@dataclass
class Body:
    """The track of one object over all frames, and its state at the end of what it has done so far."""

    spec: ObjectSpec
    index: int
    xy: Array  # (T, 2) metres
    lift: Array  # (T,) height of the bottom above the ground, metres
    rotation: Array  # (T, 3, 3) object to world
    size: Array  # (T,) half extent, metres
    colour: Array  # (T, 3)
    opacity: Array  # (T,)
    pose: Array  # (T, 4) radians
    rest: float  # height of the centre over half extent when it rests
    roll_radius: float  # over half extent
    velocity: Array = field(default_factory=lambda: np.zeros(2))  # (2,) m/s at the end
    busy: float = 0.0  # seconds: free from here on
    used: bool = False  # has done something

    def mass(self, frame: int) -> float:
        return dyn.VOLUME[self.spec.kind] * float(self.size[frame]) ** 3


@dataclass
class Stage:
    """One clip while it is simulated."""

    spec: SceneSpec
    time: Array  # (T,) seconds
    bodies: list[Body]
    contacts: list[Contact] = field(default_factory=list)

    def touch(self, body: Body, time: float, xy: Array, size: float, speed: float) -> None:
        """Records a contact with the ground, unless it is after the last frame."""
        if time <= self.time[-1] + 1e-9:
            where = (float(xy[0]), float(xy[1]), 0.0)
            pair = (body.spec.material, self.spec.ground)
            self.contacts.append(
                Contact(time=time, position=where, speed=speed, materials=pair, subject=body.index, size=size)
            )


@dataclass
class Span:
    """The frames from the start of an event on, with the time into it (stops at its end)."""

    first: int  # index of the first frame at or after the start
    s: Array  # (t,) seconds into the event, at most `duration`
    duration: float

    @property
    def u(self) -> Array:
        return self.s / self.duration


def rotate(axis: Sequence[float], angle: Array) -> Array:
    """Rotation matrices (t, 3, 3) about a unit axis by angles (t,), radians (Rodrigues' formula)."""
    x, y, z = axis
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    s, c = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    turned: Array = np.eye(3) + s * k + (1 - c) * (k @ k)
    return turned


def current(track: Array, first: int) -> Array:
    """The state before an event changes it: tracks are filled to the end, so it stands in the first frame itself."""
    return np.array(track[min(first, len(track) - 1)])


def make_body(spec: SceneSpec, index: int) -> Body:
    """The object standing on the ground; a cylinder that will roll lies on its side, its axle across the way."""
    thing, count = spec.objects[index], spec.num_frames
    for value, known, name in (
        (thing.kind, KINDS, "kind"),
        (thing.colour, COLOURS, "colour"),
        (thing.material, MATERIALS, "material"),
        (thing.size, SIZES, "size"),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; use one of {', '.join(known)}")
    heading, rest, stand = thing.heading, 1.0, np.eye(3)
    rolling = next((e for e in spec.events if e.subject == index and e.action in ("roll", "circle", "push")), None)
    if rolling and thing.kind in WHEELS:
        heading = first_heading(spec, rolling, heading)
        if thing.kind == "cylinder":  # its axis z goes to y, the axle of a wheel
            stand, rest = rotate((1.0, 0.0, 0.0), np.array([-math.pi / 2]))[0], CYLINDER_RADIUS
    elif thing.kind == "figure":
        going = next((e for e in spec.events if e.subject == index and e.action in ("walk", "circle", "push")), None)
        if going:
            heading = first_heading(spec, going, heading) + math.pi / 2
    size = SIZES[thing.size]
    turned = rotate((0.0, 0.0, 1.0), np.array([heading]))[0] @ stand
    return Body(
        spec=thing,
        index=index,
        xy=np.tile(np.array(thing.position, dtype=np.float64), (count, 1)),
        lift=np.zeros(count),
        rotation=np.tile(turned, (count, 1, 1)),
        size=np.full(count, size),
        colour=np.tile(np.array(COLOURS[thing.colour]), (count, 1)),
        opacity=np.ones(count),
        pose=np.zeros((count, 4)),
        rest=rest,
        roll_radius=CYLINDER_RADIUS if thing.kind == "cylinder" else 1.0,
    )


def first_heading(spec: SceneSpec, event: EventSpec, heading: float) -> float:
    """The way, as an angle from x, into which a thing sets out with this event; a wheel's axle is at right angles."""
    if event.direction:
        dx, dy = dyn.direction_vector(event.direction, spec.camera.azimuth)
        return math.atan2(dy, dx)
    if event.target is None or not 0 <= event.target < len(spec.objects):
        return heading
    (x0, y0), (x1, y1) = spec.objects[event.subject].position, spec.objects[event.target].position
    return math.atan2(y1 - y0, x1 - x0) - (math.pi / 2 if event.action == "circle" else 0.0)


def facing(direction: tuple[float, float]) -> float:
    """Heading of a figure (looks along -y, to the camera, at 0) that goes in a direction."""
    return math.atan2(direction[1], direction[0]) + math.pi / 2


def wrap(angle: float, period: float = 2 * math.pi) -> float:
    """The angle in [-period / 2, period / 2)."""
    return (angle + period / 2) % period - period / 2


def rolled(body: Body, first: int, direction: Array, s: Array) -> Array:
    """Rotations (t, 3, 3) of a thing that rolled `s` metres without slipping: the axis is z x direction."""
    radius = body.roll_radius * float(body.size[min(first, len(body.size) - 1)])
    return rotate((-direction[1], direction[0], 0.0), s / radius)


def can_roll_along(body: Body, r0: Array, direction: Array) -> bool:
    """Whether a thing rolls when it is moved in a direction: balls always, wheels across their axle."""
    if body.spec.kind == "ball":
        return True
    if body.spec.kind not in WHEELS or (body.spec.kind == "cylinder" and body.rest == 1.0):
        return False
    axle = r0[:, 2] if body.spec.kind == "cylinder" else r0[:, 1]
    return abs(float(axle[0] * direction[0] + axle[1] * direction[1])) < 0.1


def stride(body: Body, first: int, s: Array) -> None:
    """Arms and legs swing against each other while `s` (t,) metres are walked, in whole steps from stand to stand."""
    if not len(s) or abs(s[-1]) < 1e-6:
        return
    steps = max(1, round(abs(float(s[-1])) / (0.9 * float(current(body.size, first)))))
    swing = 0.6 * np.sin(np.pi * steps * s / s[-1])
    body.pose[first:] = np.stack([swing, -swing, -swing, swing], -1)
