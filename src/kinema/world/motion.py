"""From scenes to motion: where every object is in every frame, and every contact that can be heard.

Simple physics in closed form: flights are parabolas, landings lose speed by a restitution, wheels roll without
slipping, things that are pushed take over momentum and slide to a stop under constant friction. Each event ends
exactly where its `EventSpec` ends, and its object keeps the state it is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kinema.world.actions import ACTIONS, SCALED
from kinema.world.bodies import Contact, Span, Stage, make_body
from kinema.world.spec import EventSpec, SceneSpec, SceneState
from kinema.world.textures import texture_of
from kinema.world.vocabulary import COLOURS, GROUNDS, KINDS, MATERIALS, SKIES

__all__ = ["Contact", "simulate"]

MOST = 4.0  # largest amount of an event, times its usual size


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
    if not 0 <= event.amount <= MOST or (event.amount != 1 and event.action not in SCALED):
        raise ValueError(f"{name} has amount {event.amount}; use 0 to {MOST:g} for {', '.join(SCALED)}, else 1")
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
    textures = {(i, j): texture_of(thing) for i, spec in enumerate(specs) for j, thing in enumerate(spec.objects)}
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
        texture={place: texture for place, texture in textures.items() if texture is not None},
        height=specs[0].height,
        width=specs[0].width,
    )
