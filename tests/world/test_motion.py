"""Motion against physics and geometry: contacts, energy, rolling, momentum, and what a direction looks like."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.world.dynamics import GRAVITY, RESTITUTION, VOLUME, bounce_flights
from kinema.world.motion import simulate
from kinema.world.sample import sample_spec
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec, SceneSpec
from kinema.world.vocabulary import COLOURS, SIZES

FPS = 480.0  # fine enough to differentiate


BALL = ObjectSpec(kind="ball", colour="red")


def scene(*events, objects=(BALL,), camera=None, seconds=3.0, fps=FPS, **more):
    return SceneSpec(
        seed=0,
        objects=tuple(objects),
        events=tuple(events),
        camera=camera or CameraSpec(),
        num_frames=round(seconds * fps) + 1,
        fps=fps,
        **more,
    )


def event(action, start=0.25, end=2.75, **more):
    return EventSpec(action=action, start=start, end=end, **more)


def height(state, index=0):
    """Height of the bottom of an object that rests on its half extent, (T,) metres."""
    return (state.centre[0, :, index, 2] - state.size[0, :, index]).double().numpy()


@pytest.mark.parametrize("action", ["bounce", "jump", "fall"])
@pytest.mark.parametrize("kind", ["ball", "cone"])
def test_contacts_are_where_the_trajectory_touches(action, kind):
    state, (contacts,) = simulate([scene(event(action), objects=[ObjectSpec(kind=kind, colour="red")])])
    z, time = height(state), np.arange(state.centre.shape[1]) / FPS
    assert z.min() > -1e-5 and contacts
    assert len(contacts) >= {"bounce": 2, "jump": 1, "fall": 1}[action]
    for contact in contacts:
        at = round(contact.time * FPS)
        assert np.interp(contact.time, time, z) < 1e-2 * contact.speed
        before = (z[at - 2] - z[at - 4]) / 2 * FPS
        assert before == pytest.approx(-contact.speed, abs=6 * GRAVITY / FPS)  # it comes down as fast as it says
        after = (z[at + 4] - z[at + 2]) / 2 * FPS
        assert after >= -1e-4  # and goes up, or rests
        assert contact.position[2] == 0.0
    speed = np.diff(z)
    landings = np.flatnonzero((speed[:-1] < -1e-4) & (speed[1:] > speed[:-1] + 1e-4))  # where falling ends at once
    times = [contact.time for contact in contacts]
    assert all(np.abs(time[i + 1] - times).min() < 2 / FPS for i in landings)  # no landing without a contact


def test_a_contact_touches_the_ground_exactly():
    """Frames put on the exact times: the bottom is at z = 0 within a micrometre."""
    flights = bounce_flights(2.5)
    time = sum(flight for _, flight in flights[:2])
    spec = scene(event("bounce", start=0.0, end=2.5), seconds=2 * time, fps=1 / time)
    state, (contacts,) = simulate([spec])
    assert contacts[1].time == pytest.approx(time, abs=1e-9)
    assert abs(height(state)[1]) < 1e-6
    ratio = contacts[1].speed / contacts[0].speed
    assert ratio == pytest.approx(RESTITUTION)


@pytest.mark.parametrize("action", ["bounce", "fall"])
def test_energy_never_grows_in_free_motion(action):
    state, _ = simulate([scene(event(action, start=0.0))])
    z = height(state)
    speed = np.gradient(z, 1 / FPS)
    energy = GRAVITY * z + speed**2 / 2
    flying = z > 0.02
    kept = energy[flying]
    assert (np.diff(kept) < 0.05).all()  # numeric differentiation near a landing costs a little
    assert energy[-1] < 1e-3


@pytest.mark.parametrize("kind, over_size", [("ball", 1.0), ("ring", 1.0), ("cylinder", 0.8)])
@pytest.mark.parametrize("direction", ["left", "right", "towards", "away"])
def test_rolling_without_slipping(kind, over_size, direction):
    """The point of the body that touches the ground has no velocity: v + w x (0, 0, -r) = 0."""
    spec = scene(event("roll", direction=direction), objects=[ObjectSpec(kind=kind, colour="red", heading=1.0)])
    state, _ = simulate([spec])
    v = (state.centre[0, 1:, 0] - state.centre[0, :-1, 0]).double() * FPS
    turn = state.rotation[0, 1:, 0].double() @ state.rotation[0, :-1, 0].double().transpose(-1, -2)
    skew = (turn - turn.transpose(-1, -2)) / 2 * FPS
    w = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1)
    arm = torch.tensor([0.0, 0.0, -over_size * SIZES["medium"]], dtype=torch.float64)
    slip = v + torch.linalg.cross(w, arm.expand_as(w))
    assert v.norm(dim=-1).max() > 0.5
    assert slip.norm(dim=-1).max() < 5e-3 * v.norm(dim=-1).max() + 2e-3
    eye = state.rotation[0, :, 0] @ state.rotation[0, :, 0].transpose(-1, -2)
    torch.testing.assert_close(eye, torch.eye(3).expand_as(eye), atol=1e-5, rtol=0)


def test_a_push_keeps_momentum_and_friction_stops_both():
    objects = [
        ObjectSpec(kind="ball", colour="red", position=(-1.5, 0.0)),
        ObjectSpec(kind="cube", colour="blue", size="small", position=(0.5, 0.3)),
    ]
    state, (contacts,) = simulate([scene(event("push", target=1), objects=objects)])
    contact = contacts[0]
    at = math.floor(contact.time * FPS)
    v = (state.centre[0, 1:].double() - state.centre[0, :-1].double()) * FPS  # (T-1, 2, 3)
    mass = torch.tensor([VOLUME["ball"] * SIZES["medium"] ** 3, VOLUME["cube"] * SIZES["small"] ** 3])
    before = (mass[:, None] * v[at - 2]).sum(0)
    after = (mass[:, None] * v[at + 2]).sum(0)
    torch.testing.assert_close(after, before, rtol=0.02, atol=1e-4)
    assert v[at - 2, 0].norm() == pytest.approx(contact.speed, rel=0.02)
    distance = (state.centre[0, at, 0, :2] - state.centre[0, at, 1, :2]).norm()
    assert distance == pytest.approx(SIZES["medium"] + SIZES["small"], abs=0.01)
    kinetic = (mass[:, None] * v.square().sum(-1).T).sum(0)
    assert kinetic[at + 2] <= kinetic[at - 2] + 1e-6
    assert v[-1].norm() < 1e-6 and v[at + 2, 1].norm() > 0.3


@pytest.mark.parametrize("azimuth", [0.0, 0.7])
@pytest.mark.parametrize("direction", ["left", "right", "towards", "away"])
@pytest.mark.parametrize("action, kind", [("roll", "ball"), ("slide", "cube"), ("walk", "figure")])
def test_directions_are_as_the_first_camera_sees_them(action, kind, direction, azimuth):
    spec = scene(
        event(action, direction=direction),
        objects=[ObjectSpec(kind=kind, colour="red")],
        camera=CameraSpec(azimuth=azimuth),
        fps=8.0,
    )
    state, _ = simulate([spec])
    moved = state.world_to_camera[0, 0, :3, :3] @ (state.centre[0, -1, 0] - state.centre[0, 0, 0])
    right, depth = float(moved[0]), float(moved[2])
    expected = {"left": right < -1.5, "right": right > 1.5, "towards": depth < -2, "away": depth > 2}
    assert expected[direction]
    assert abs(right) < 1e-3 or abs(depth) < 1e-3


def test_events_start_and_end_exactly_and_nothing_else_moves():
    specs = [replace(sample_spec(seed, "full"), num_frames=121, fps=40.0) for seed in range(60)]
    state, _ = simulate(specs)
    time = np.arange(121) / 40.0
    tracks = (state.centre, state.rotation, state.size, state.colour, state.pose, state.opacity)
    change = torch.stack([(x[:, 1:] - x[:, :-1]).abs().flatten(2).amax(2) for x in tracks]).amax(0).numpy()  # (B, T-1)
    for spec, moved in zip(specs, change, strict=True):
        quiet = np.ones(120, dtype=bool)
        for e in spec.events:
            quiet &= (time[1:] <= e.start + 1e-9) | (time[:-1] >= e.end - 1e-9)
        assert (moved[quiet] < 1e-4).all(), spec
        assert all((moved[(time[1:] > e.start) & (time[:-1] < e.end)] > 1e-4).any() for e in spec.events), spec


def test_resting_objects_stand_on_the_ground():
    for seed in range(100):
        spec = sample_spec(seed, "full")
        state, _ = simulate([spec])
        for n, thing in enumerate(spec.objects):
            if any(e.subject == n and e.action in ("bounce", "jump", "fall") for e in spec.events):
                continue
            bottom = state.centre[0, :, n, 2] / state.size[0, :, n]
            assert torch.isclose(bottom, torch.tensor(1.0)).all() or thing.kind == "cylinder"


def test_single_actions():
    grow, _ = simulate([scene(event("grow"))])
    assert grow.size[0, -1, 0] / grow.size[0, 0, 0] == pytest.approx(1.8)
    turned, _ = simulate([scene(event("change colour", colour="green"))])
    torch.testing.assert_close(turned.colour[0, -1, 0], torch.tensor(COLOURS["green"]))
    shown, _ = simulate([scene(event("appear"))])
    assert shown.opacity[0, 0, 0] == 0 and shown.opacity[0, -1, 0] == 1
    gone, _ = simulate([scene(event("disappear"))])
    assert gone.opacity[0, 0, 0] == 1 and gone.opacity[0, -1, 0] == 0
    stopped, _ = simulate([scene(event("roll", end=1.5, direction="left"), event("stop", start=1.5))])
    v = (stopped.centre[0, 1:, 0, 0] - stopped.centre[0, :-1, 0, 0]) * FPS
    at = round(1.5 * FPS)
    assert v[at + 3] == pytest.approx(float(v[at - 3]), rel=0.05)  # the speed is kept, then lost to friction
    assert v[-1].abs() < 1e-4
    pair = [ObjectSpec(kind="ball", colour="red", position=(1.5, 0)), ObjectSpec(kind="cube", colour="blue")]
    circled, _ = simulate([scene(event("circle", target=1), objects=pair)])
    radius = circled.centre[0, :, 0, :2].norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, 1.5))
    torch.testing.assert_close(circled.centre[0, -1, 0], circled.centre[0, 0, 0], atol=1e-4, rtol=0)


def test_a_batch_is_its_clips():
    specs = [sample_spec(seed, "full") for seed in range(12)]
    state, contacts = simulate(specs)
    again, _ = simulate(specs)
    torch.testing.assert_close(state.centre, again.centre, rtol=0, atol=0)
    for i, spec in enumerate(specs):
        one, (own,) = simulate([spec])
        n = len(spec.objects)
        torch.testing.assert_close(state.centre[i, :, :n], one.centre[0], rtol=0, atol=0)
        assert (state.kind[i, n:] == -1).all() and (state.opacity[i, :, n:] == 0).all()
        assert own == contacts[i]


@pytest.mark.parametrize(
    "events, says",
    [
        ([event("fly")], "action is 'fly'"),
        ([event("bounce", start=2.0, end=1.0)], "use 0 <= start < end"),
        ([event("bounce", subject=3)], "use 0 to 0"),
        ([event("bounce"), event("jump", start=1.0)], "busy until 2.75"),
        ([event("jump", end=1.0), event("fall", start=1.5)], "must be the first event"),
        ([event("stop")], "needs a moving object"),
        ([event("push", target=0)], "use the index of another object"),
        ([event("roll", direction="up")], "use one of left, right, towards, away"),
        ([event("change colour", colour="mauve")], "use one of red"),
    ],
)
def test_refuses_what_cannot_happen(events, says):
    with pytest.raises(ValueError, match=says):
        simulate([scene(*events)])
