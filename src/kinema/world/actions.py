"""What each action does to the tracks of its objects, in closed form.

Every action is a function (stage, body, event, span, following): it fills the tracks of `body` from the first frame
of `span` to the end of the clip; `following` is the next event of the same object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kinema.world import dynamics as dyn
from kinema.world.bodies import (
    ROLLERS,
    WHEELS,
    Array,
    Body,
    Contact,
    Span,
    Stage,
    can_roll_along,
    current,
    facing,
    rolled,
    rotate,
    stride,
    wrap,
)
from kinema.world.spec import EventSpec
from kinema.world.vocabulary import COLOURS

Act = Callable[[Stage, Body, EventSpec, Span, EventSpec | None], None]
SCALED = ("roll", "slide", "walk", "bounce", "jump", "fall", "spin", "grow", "shrink")  # may have another amount than 1


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


def travel(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """roll, slide, walk: a straight way; wheels and figures first turn into it."""
    direction = np.array(dyn.direction_vector(event.direction, stage.spec.camera.azimuth))
    length = event.amount * dyn.travel_distance(span.duration, event.direction)
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
    flights(stage, body, span, event, dyn.bounce_flights(span.duration, event.amount))


def jump(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    longest = dyn.GRAVITY * span.duration / 2  # a higher one would not be over when the event is
    usual = min(longest, math.sqrt(2 * dyn.GRAVITY * dyn.JUMP_HEIGHT))
    speed = min(longest, math.sqrt(event.amount) * usual)
    flights(stage, body, span, event, [(speed, 2 * speed / dyn.GRAVITY)])
    if body.spec.kind == "figure":  # arms up while in the air
        body.pose[span.first :, :2] = (2.4 * np.clip(body.lift[span.first :] / 0.3, 0, 1))[:, None]


def fall(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """Hangs in the air until its start, drops, and comes to rest in ever smaller hops."""
    f, size = span.first, float(body.size[0])
    height = event.amount * dyn.fall_height(size, span.duration)
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
    """Whole turns about the vertical axis, times its amount."""
    f, turns = span.first, event.amount * max(1, round(dyn.SPIN_RATE * span.duration))
    way, _ = travelled(span.u, ramp_out=True)
    body.rotation[f:] = rotate((0.0, 0.0, 1.0), 2 * math.pi * turns * way) @ current(body.rotation, f)


def resize(factor: float) -> Callable[..., None]:
    def act(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
        f = span.first
        body.size[f:] = current(body.size, f) * (factor**event.amount) ** span.u

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
        turn = wrap(facing((tangent[0], tangent[1])) - math.atan2(r0[1, 0], r0[0, 0]))
        r0 = rotate((0.0, 0.0, 1.0), turn * np.clip(span.u / dyn.RAMP, 0, 1)) @ r0
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


def walk_wave(stage: Stage, body: Body, event: EventSpec, span: Span, following: EventSpec | None) -> None:
    """The right arm goes up and waves; it is down again at the end."""
    u, f = span.u, span.first
    raised = np.clip(np.minimum(u, 1 - u) / 0.15, 0, 1)
    body.pose[f:, 1] = raised * (2.5 + 0.45 * np.sin(2 * math.pi * 1.5 * span.s))


ACTIONS: dict[str, Act] = {
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
