"""From scenes to motion: where every object is in every frame, and every contact that can be heard.

Simple physics in closed form: flights are parabolas, landings lose speed by a restitution, wheels roll without
slipping, things that are pushed take over momentum and slide to a stop under constant friction. Each event ends
exactly where its `EventSpec` ends, and its object keeps the state it is in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from kinema.world import dynamics as dyn
from kinema.world.shapes import CYLINDER_RADIUS
from kinema.world.spec import EventSpec, ObjectSpec, SceneSpec, SceneState
from kinema.world.vocabulary import COLOURS, GROUNDS, KINDS, MATERIALS, SIZES, SKIES

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
    return np.eye(3) + s * k + (1 - c) * (k @ k)


def travelled(u: Array, ramp_out: bool) -> tuple[Array, float]:
    """Part of the way (t,) at part `u` of the time: speed rises over RAMP, is constant, falls over RAMP at the end.

    Also returns the cruising speed, in ways per time. Without `ramp_out` the speed is kept at the end.
    """
    r = dyn.RAMP
    speed = 1 / (1 - r if ramp_out else 1 - r / 2)
    way = np.where(u < r, u * u / (2 * r), u - r / 2)
    if ramp_out:
        way = np.where(u > 1 - r, 1 - r - (1 - u) ** 2 / (2 * r), way)
    return way * speed, speed


def simulate(specs: list[SceneSpec]) -> tuple[SceneState, list[list[Contact]]]:
    """Moves the objects of B clips of one length and size.

    Returns:
        The state (centres (B, T, N, 3), rotations (B, T, N, 3, 3) ..., see `SceneState`), padded to the largest
        number of objects, and for each clip its contacts in the order of time.

    Raises:
        ValueError: when the clips differ in length, frame rate or size, or a scene asks for what cannot happen.
    """
    if not specs:
        raise ValueError("no scene to simulate; give at least one")
    forms = {(s.num_frames, s.height, s.width, s.fps) for s in specs}
    if len(forms) > 1:
        raise ValueError(f"scenes differ in (num_frames, height, width, fps): {sorted(forms)}; use one form a batch")
    stages = [run_stage(spec) for spec in specs]
    return to_state(stages), [sorted(stage.contacts, key=lambda c: c.time) for stage in stages]


def run_stage(spec: SceneSpec) -> Stage:
    time = np.arange(spec.num_frames) / spec.fps
    bodies = [make_body(spec, index) for index in range(len(spec.objects))]
    stage = Stage(spec, time, bodies)
    events = sorted(spec.events, key=lambda e: e.start)
    for position, event in enumerate(events):
        check_event(stage, event)
        body = bodies[event.subject]
        following = next((e for e in events[position + 1 :] if e.subject == event.subject), None)
        first = int(np.searchsorted(time, event.start - 1e-9))
        duration = event.end - event.start
        span = Span(first, np.minimum(time[first:] - event.start, duration), duration)
        if event.action != "stop":
            body.velocity = np.zeros(2)
        ACTIONS[event.action](stage, body, event, span, following)
        body.busy, body.used = event.end, True
    return stage


def check_event(stage: Stage, event: EventSpec) -> None:
    name, count = event.label, len(stage.bodies)
    if event.action not in ACTIONS:
        raise ValueError(f"action is {event.action!r}; use one of {', '.join(ACTIONS)}")
    if event.end <= event.start or event.start < 0:
        raise ValueError(f"{name} lasts from {event.start} to {event.end} s; use 0 <= start < end")
    if not 0 <= event.subject < count:
        raise ValueError(f"{name} has subject {event.subject}; use 0 to {count - 1}")
    body = stage.bodies[event.subject]
    if event.start < body.busy - 1e-6:
        raise ValueError(f"{name} starts at {event.start} s while its object is busy until {body.busy} s; start later")
    if event.action in ("fall", "appear") and body.used:
        raise ValueError(f"{name} must be the first event of its object")
    if event.action == "stop" and not body.velocity.any():
        raise ValueError("stop needs a moving object; put a roll, slide or walk of the same object right before it")
    if event.action in ("circle", "push") and (
        event.target is None or not 0 <= event.target < count or event.target == event.subject
    ):
        raise ValueError(f"{name} has target {event.target}; use the index of another object")
    if event.action == "change colour" and event.colour not in COLOURS:
        raise ValueError(f"the new colour is {event.colour!r}; use one of {', '.join(COLOURS)}")


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
        heading = axle_heading(spec, rolling, heading)
        if thing.kind == "cylinder":  # its axis z goes to y, the axle of a wheel
            stand, rest = rotate((1.0, 0.0, 0.0), np.array([-math.pi / 2]))[0], CYLINDER_RADIUS
    elif thing.kind == "figure":
        walk = next((e for e in spec.events if e.subject == index and e.action == "walk"), None)
        if walk:
            heading = facing(dyn.direction_vector(walk.direction, spec.camera.azimuth))
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


def axle_heading(spec: SceneSpec, event: EventSpec, heading: float) -> float:
    """Heading of a wheel (axle along y at 0) that starts with this event."""
    if event.action == "roll":
        dx, dy = dyn.direction_vector(event.direction, spec.camera.azimuth)
        return math.atan2(dy, dx)
    if event.target is None:
        return heading
    (x0, y0), (x1, y1) = spec.objects[event.subject].position, spec.objects[event.target].position
    return math.atan2(y1 - y0, x1 - x0) + (math.pi / 2 if event.action == "circle" else 0.0)


def facing(direction: tuple[float, float]) -> float:
    """Heading of a figure (looks along -y, to the camera, at 0) that goes in a direction."""
    return math.atan2(direction[1], direction[0]) + math.pi / 2


def wrap(angle: float, period: float = 2 * math.pi) -> float:
    """The angle in [-period / 2, period / 2)."""
    return (angle + period / 2) % period - period / 2


def travel(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """roll, slide, walk: a straight way; wheels and figures first turn into it."""
    direction = np.array(dyn.direction_vector(event.direction, stage.spec.camera.azimuth))
    length = dyn.travel_distance(span.duration, event.direction)
    f, u, r0 = span.first, span.u, current(body.rotation, span.first)
    turn = needed_turn(body, event, r0, direction)
    if turn:
        r0 = rotate((0.0, 0.0, 1.0), turn * np.clip(u / dyn.TURN, 0, 1)) @ r0
        u = np.maximum(u - dyn.TURN, 0) / (1 - dyn.TURN)
    stops = following is not None and following.action == "stop"
    way, speed = travelled(u, ramp_out=not stops)
    s = way * length
    body.xy[f:] = current(body.xy, f) + s[:, None] * direction
    if event.action == "roll" and body.spec.kind in ROLLERS:
        body.rotation[f:] = rolled(body, f, direction, s) @ r0
    else:
        body.rotation[f:] = r0
    if event.action == "walk":
        stride(body, f, s)
    if stops:
        body.velocity = direction * (length * speed / (span.duration * (1 - dyn.TURN if turn else 1)))


def current(track: Array, first: int) -> Array:
    """The state before an event changes it: tracks are filled to the end, so it stands in the first frame itself."""
    return np.array(track[min(first, len(track) - 1)])


def needed_turn(body: Body, event: EventSpec, r0: Array, direction: Array) -> float:
    """Radians about z by which a wheel or a figure must turn before it can go in a direction."""
    if event.action == "walk":
        looks = math.atan2(r0[1, 0], r0[0, 0])
        turn = wrap(facing((direction[0], direction[1])) - looks)
    elif event.action == "roll" and body.spec.kind in WHEELS:
        axle = r0[:, 2] if body.spec.kind == "cylinder" else r0[:, 1]
        turn = wrap(math.atan2(direction[1], direction[0]) + math.pi / 2 - math.atan2(axle[1], axle[0]), math.pi)
    else:
        return 0.0
    return turn if abs(turn) > 1e-6 else 0.0


def rolled(body: Body, first: int, direction: Array, s: Array) -> Array:
    """Rotations (t, 3, 3) of a thing that rolled `s` metres without slipping: the axis is z x direction."""
    radius = body.roll_radius * float(body.size[min(first, len(body.size) - 1)])
    return rotate((-direction[1], direction[0], 0.0), s / radius)


def stride(body: Body, first: int, s: Array) -> None:
    """Arms and legs swing against each other; a step is 0.9 half extents long."""
    size = body.size[first:]
    phase = np.pi * s / (0.9 * size)
    moving = np.gradient(s) > 1e-6 if len(s) > 1 else np.zeros(len(s), bool)
    swing = 0.6 * np.sin(phase) * moving
    body.pose[first:] = np.stack([swing, -swing, -swing, swing], -1)


def stop(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """Friction: constant deceleration from the speed of the event before to rest."""
    f, v = span.first, body.velocity
    time = min(span.duration, dyn.STOP_SECONDS)
    s = np.minimum(span.s, time)
    way = s - s * s / (2 * time)  # seconds at full speed
    speed = float(np.hypot(*v))
    direction = v / speed
    # Frames between the end of the movement and this start kept the speed: the state in them is already final.
    body.xy[f:] = current(body.xy, f) + (way * speed)[:, None] * direction
    if body.spec.kind in ROLLERS and not (body.spec.kind == "cylinder" and body.rest == 1.0):
        body.rotation[f:] = rolled(body, f, direction, way * speed) @ current(body.rotation, f)
    if body.spec.kind == "figure":
        stride(body, f, way * speed)
    body.velocity = np.zeros(2)


def flights(stage: Stage, body: Body, span: Span, event: EventSpec, hops: Sequence[tuple[float, float]]) -> None:
    """Hops of (take-off speed, flight time) one after the other from the start of the span."""
    f, xy = span.first, current(body.xy, span.first)
    size = float(current(body.size, f))
    lift, at = np.zeros(len(span.s)), 0.0
    for speed, flight in hops:
        s = span.s - at
        inside = (s > 0) & (s < flight)
        lift = np.where(inside, speed * s - dyn.GRAVITY / 2 * s * s, lift)
        at += flight
        stage.touch(body, event.start + at, xy, size, speed)
    body.lift[f:] = np.maximum(lift, 0.0)


def bounce(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    flights(stage, body, span, event, dyn.bounce_flights(span.duration))


def jump(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    speed = min(dyn.GRAVITY * span.duration / 2, math.sqrt(2 * dyn.GRAVITY * dyn.JUMP_HEIGHT))
    flights(stage, body, span, event, [(speed, 2 * speed / dyn.GRAVITY)])
    if body.spec.kind == "figure":  # arms up while in the air
        body.pose[span.first :, :2] = (2.4 * np.clip(body.lift[span.first :] / 0.3, 0, 1))[:, None]


def fall(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """Hangs in the air until its start, drops, and comes to rest in ever smaller hops."""
    f, size = span.first, float(body.size[0])
    height = dyn.fall_height(size, span.duration)
    down = math.sqrt(2 * height / dyn.GRAVITY)
    speed = dyn.GRAVITY * down
    body.lift[:f] = height
    stage.touch(body, event.start + down, body.xy[0], size, speed)
    hops, left = [], span.duration - down
    while True:
        speed *= dyn.THUD
        flight = 2 * speed / dyn.GRAVITY
        if flight > left or speed < 0.15:
            break
        hops.append((speed, flight))
        left -= flight
    after = Span(f, np.maximum(span.s - down, 0), max(left, 1e-9))
    flights(stage, body, after, shifted(event, down), hops)
    drop = height - dyn.GRAVITY / 2 * span.s**2
    body.lift[f:] = np.where(span.s < down, drop, body.lift[f:])


def shifted(event: EventSpec, seconds: float) -> EventSpec:
    return EventSpec(action=event.action, start=event.start + seconds, end=event.end + seconds, subject=event.subject)


def spin(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """Whole turns about the vertical axis."""
    f, turns = span.first, max(1, round(dyn.SPIN_RATE * span.duration))
    way, _ = travelled(span.u, ramp_out=True)
    body.rotation[f:] = rotate((0.0, 0.0, 1.0), 2 * math.pi * turns * way) @ current(body.rotation, f)


def resize(factor: float) -> Callable[..., None]:
    def act(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
        f = span.first
        body.size[f:] = current(body.size, f) * factor**span.u

    return act


def change_colour(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    f, before, after = span.first, current(body.colour, span.first), np.array(COLOURS[event.colour])
    body.colour[f:] = before + span.u[:, None] * (after - before)


def appear(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    body.opacity[: span.first] = 0.0
    body.opacity[span.first :] = span.u


def disappear(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    body.opacity[span.first :] = 1.0 - span.u


def circle(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """One turn around the target, counter-clockwise from above; things that can roll do."""
    assert event.target is not None
    f, middle = span.first, current(stage.bodies[event.target].xy, span.first)
    start = current(body.xy, f) - middle
    radius = float(np.hypot(*start))
    if radius < 1e-6:
        raise ValueError("circle needs its two objects at different places")
    way, _ = travelled(span.u, ramp_out=True)
    angle = 2 * math.pi * way
    c, s = np.cos(angle), np.sin(angle)
    body.xy[f:] = middle + np.stack([start[0] * c - start[1] * s, start[0] * s + start[1] * c], -1)
    r0 = current(body.rotation, f)
    tangent = np.array([-start[1], start[0]]) / radius
    if body.spec.kind in ROLLERS and not (body.spec.kind == "cylinder" and body.rest == 1.0):
        r0 = rolled(body, f, tangent, angle * radius) @ r0
    elif body.spec.kind == "figure":
        stride(body, f, angle * radius)
        r0 = rotate((0.0, 0.0, 1.0), np.array([facing((tangent[0], tangent[1]))]))[0]
    body.rotation[f:] = rotate((0.0, 0.0, 1.0), angle) @ r0


def push(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """Runs into the target after PUSH_CONTACT of the time; both keep momentum and slow down to rest by friction."""
    assert event.target is not None
    f, other = span.first, stage.bodies[event.target]
    if event.start < other.busy - 1e-6:
        raise ValueError(f"push starts at {event.start} s while its target is busy until {other.busy} s; start later")
    start, goal = current(body.xy, f), current(other.xy, f)
    gap = float(np.hypot(*(goal - start)))
    r1, r2 = float(current(body.size, f)), float(current(other.size, f))
    length = gap - r1 - r2
    if length <= 0:
        raise ValueError(f"push needs its objects apart; they are {gap:.2f} m from centre to centre")
    direction = (goal - start) / gap
    meet = dyn.PUSH_CONTACT * span.duration
    left = span.duration - meet
    way, speed = travelled(np.minimum(span.s / meet, 1.0), ramp_out=False)
    v = length * speed / meet
    m1, m2 = body.mass(min(f, len(body.size) - 1)), other.mass(min(f, len(other.size) - 1))
    e = dyn.PUSH_RESTITUTION
    v1, v2 = v * (m1 - e * m2) / (m1 + m2), v * m1 * (1 + e) / (m1 + m2)
    s = np.clip(span.s - meet, 0, left)
    glide = s - s * s / (2 * left)
    for thing, path in ((body, way * length + v1 * glide), (other, v2 * glide)):
        origin, r0 = current(thing.xy, f), current(thing.rotation, f)
        thing.xy[f:] = origin + path[:, None] * direction
        if can_roll_along(thing, r0, direction):
            thing.rotation[f:] = rolled(thing, f, direction, path) @ r0
        elif thing.spec.kind == "figure" and thing is body:
            stride(thing, f, path)
    touch = start + direction * (length + r1)
    where = (float(touch[0]), float(touch[1]), min(r1, r2))
    time = event.start + meet
    if time <= stage.time[-1]:
        pair = (body.spec.material, other.spec.material)
        stage.contacts.append(
            Contact(time=time, position=where, speed=v, materials=pair, subject=body.index, target=other.index, size=r2)
        )
    other.busy, other.used = event.end, True


def can_roll_along(body: Body, r0: Array, direction: Array) -> bool:
    """Whether a thing rolls when it is moved in a direction: balls always, wheels across their axle."""
    if body.spec.kind == "ball":
        return True
    if body.spec.kind not in WHEELS or (body.spec.kind == "cylinder" and body.rest == 1.0):
        return False
    axle = r0[:, 2] if body.spec.kind == "cylinder" else r0[:, 1]
    return abs(float(axle[0] * direction[0] + axle[1] * direction[1])) < 0.1


def walk_wave(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """The right arm goes up and waves; it is down again at the end."""
    u, f = span.u, span.first
    raised = np.clip(np.minimum(u, 1 - u) / 0.15, 0, 1)
    body.pose[f:, 1] = raised * (2.5 + 0.45 * np.sin(2 * math.pi * 1.5 * span.s))


ACTIONS: dict[str, Callable[[Stage, Body, EventSpec, Span, EventSpec | None], None]] = {
    "roll": travel,
    "slide": travel,
    "walk": travel,
    "bounce": bounce,
    "jump": jump,
    "spin": spin,
    "fall": fall,
    "stop": stop,
    "grow": resize(dyn.GROW),
    "shrink": resize(dyn.SHRINK),
    "change colour": change_colour,
    "appear": appear,
    "disappear": disappear,
    "circle": circle,
    "push": push,
    "wave": walk_wave,
}


def to_state(stages: Sequence[Stage]) -> SceneState:
    """Packs clips into padded tensors and adds their cameras."""
    from kinema.world.cameras import camera_path

    specs = [stage.spec for stage in stages]
    b, t, n = len(stages), specs[0].num_frames, max(1, max(len(stage.bodies) for stage in stages))
    kind, material = np.full((b, n), -1), np.zeros((b, n), dtype=np.int64)
    centre, size = np.zeros((b, t, n, 3)), np.full((b, t, n), 0.5)
    rotation, colour = np.tile(np.eye(3), (b, t, n, 1, 1)), np.zeros((b, t, n, 3))
    opacity, pose = np.zeros((b, t, n)), np.zeros((b, t, n, 4))
    for i, stage in enumerate(stages):
        for j, body in enumerate(stage.bodies):
            kind[i, j], material[i, j] = KINDS.index(body.spec.kind), MATERIALS.index(body.spec.material)
            centre[i, :, j, :2] = body.xy
            centre[i, :, j, 2] = body.lift + body.rest * body.size
            rotation[i, :, j], size[i, :, j], colour[i, :, j] = body.rotation, body.size, body.colour
            opacity[i, :, j], pose[i, :, j] = body.opacity, body.pose
    cameras = [camera_path(spec) for spec in specs]
    floats = [torch.from_numpy(a.astype(np.float32)) for a in (centre, rotation, size, colour, opacity, pose)]
    return SceneState(
        kind=torch.from_numpy(kind),
        material=torch.from_numpy(material),
        centre=floats[0],
        rotation=floats[1],
        size=floats[2],
        colour=floats[3],
        opacity=floats[4],
        pose=floats[5],
        ground=torch.tensor([GROUNDS.index(s.ground) for s in specs]),
        sky=torch.tensor([SKIES.index(s.sky) for s in specs]),
        intrinsics=torch.stack([k for k, _ in cameras]),
        world_to_camera=torch.stack([m for _, m in cameras]),
        height=specs[0].height,
        width=specs[0].width,
    )
