"""Cameras of scenes: named moves as they always were, and legs in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from kinema.core.camera import DOLLY, FOCAL, LOOK_AT, ONSET, ORBIT, PAN, RISE, TILT, ZOOM, CameraLeg, progress
from kinema.world.cameras import camera_path
from kinema.world.layout import Layout
from kinema.world.spec import CameraSpec, SceneSpec

PARTS = torch.linspace(0, 1, 25, dtype=torch.float64)
STILL = CameraSpec(distance=6.75, height=2.1)


def path(*legs, frames=25, **camera):
    return camera_path(scene(CameraSpec(distance=6.75, height=2.1, legs=legs, **camera), frames))


def scene(camera, frames=25):
    return SceneSpec(seed=0, objects=(), events=(), camera=camera, num_frames=frames)


def leg(move, amount=1.0, start=0.0, end=1.0):
    return CameraLeg(move=move, amount=amount, start=start, end=end)


def centre(pose):
    return -(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0]


def angles(pose):
    """Yaw and pitch (T,) of level cameras."""
    forward = pose[:, 2, :3]
    return torch.atan2(-forward[:, 0], forward[:, 1]), torch.asin(forward[:, 2])


def test_a_leg_turns_by_its_amount_from_where_the_camera_stands():
    k, still = path()
    for word, size, which in (
        ("pan left", PAN, 0),
        ("pan right", -PAN, 0),
        ("tilt up", TILT, 1),
        ("tilt down", -TILT, 1),
    ):
        same, pose = path(leg(word, 0.7))
        turned = angles(pose)[which] - angles(still)[which]
        assert torch.allclose(turned.double(), 0.7 * size * progress(PARTS), atol=1e-5)
        assert torch.allclose(centre(pose), centre(still), atol=1e-5) and torch.equal(same, k)


def test_a_leg_of_the_lens_the_eye_and_the_height():
    _, still = path()
    zoomed, pose = path(leg("zoom out", 0.5))
    assert torch.allclose(zoomed[:, 0, 0].double(), FOCAL * 128 * ZOOM ** (-0.5 * progress(PARTS)), rtol=1e-5)
    assert torch.equal(pose, still)
    target = torch.tensor(LOOK_AT)
    far = (centre(path(leg("dolly in", 1.2))[1]) - target).norm(dim=-1)
    assert torch.allclose(far.double(), 6.75 * (1 - 1.2 * DOLLY * progress(PARTS)), atol=1e-4)
    up = centre(path(leg("rise down", 0.8))[1])
    assert torch.equal(path(leg("rise", -0.8))[1], path(leg("rise down", 0.8))[1])
    assert torch.allclose(up[:, 2].double(), 2.1 - 0.8 * RISE * progress(PARTS), atol=1e-5)


def test_an_orbit_goes_round_the_point_looked_at_and_keeps_it_in_the_middle():
    k, pose = path(leg("orbit left"))
    eye, target = centre(pose), torch.tensor(LOOK_AT)
    assert torch.allclose((eye - target).norm(dim=-1), torch.full((25,), 6.75), atol=1e-4)
    assert float(torch.atan2(-eye[-1, 0], -eye[-1, 1])) == pytest.approx(ORBIT, abs=1e-5)  # the eye goes to the left
    seen = (k @ (pose @ torch.tensor([*LOOK_AT, 1.0]))[:, :3, None])[..., 0]
    assert torch.allclose(seen[:, :2] / seen[:, 2:], torch.tensor(64.0), atol=1e-3)


def test_a_leg_has_its_time_and_stays_done():
    whole, part = path(leg("pan left"), frames=13)[1], path(leg("pan left", start=0.25, end=0.75))[1]
    still = path()[1]
    assert torch.equal(part[:7], still[:7]) and torch.equal(part[18:], part[18:19].expand(7, 4, 4))
    assert torch.allclose(part[6:19], whole, atol=1e-6)  # the whole leg, in half of the time
    assert angles(part)[0].diff()[6:18].argmin() == 0  # with a soft onset


def test_legs_add_up_and_follow_each_other():
    both = angles(path(leg("pan left"), leg("pan left", -0.4))[1])[0]
    assert torch.allclose(both, angles(path(leg("pan left", 0.6))[1])[0], atol=1e-6)
    row = path(leg("pan left", end=0.5), leg("orbit right", start=0.5))[1]
    assert torch.allclose(row[:13], path(leg("pan left", end=0.5))[1][:13])
    assert torch.allclose(row[-1], path(leg("pan left"), leg("orbit right"))[1][-1], atol=1e-5)


def test_a_named_move_is_a_leg_that_began_before():
    named, legs = path(move="tilt up", amount=1.0)[1], path(leg("tilt up"))[1]
    assert torch.allclose(angles(legs)[1] - angles(named)[1], torch.tensor(TILT / 2), atol=1e-6)
    more = path(leg("rise"), move="tilt up", amount=1.0)[1]
    assert centre(more)[-1, 2] == pytest.approx(2.1 + RISE, abs=1e-5)


def test_old_paths_are_bit_for_bit_what_they_were():
    """The formula that these paths have had since the first training, written out once more for one move."""
    spec = scene(CameraSpec(move="orbit right", distance=6.3, height=1.9, azimuth=0.2, amount=0.9))
    u = torch.linspace(0.0, 1.0, 25, dtype=torch.float64)
    done = torch.where(u < ONSET, u.square() / (2 * ONSET), u - ONSET / 2) / (1 - ONSET / 2)
    azimuth = 0.2 - (-1.0 * 0.9 * (done - 0.5)) * ORBIT
    away = math.sqrt(6.3**2 - (1.9 - 0.85) ** 2)
    eye = torch.stack([azimuth.sin() * away, -azimuth.cos() * away, torch.full_like(u, 1.9)], -1)
    pitch = torch.atan2(0.85 - eye[:, 2], (torch.zeros(2, dtype=torch.float64) - eye[:, :2]).norm(dim=-1))
    forward = torch.stack([-azimuth.sin() * pitch.cos(), azimuth.cos() * pitch.cos(), pitch.sin()], -1)
    k, pose = camera_path(spec)
    assert torch.equal(pose[:, 2, :3], forward.float())
    assert torch.equal(k[:, 0, 0], torch.full((25,), 208.0))


def test_dicts_with_and_without_legs():
    new = scene(replace(STILL, legs=(leg("dolly in", -0.5, 0.2, 0.9),)))
    assert SceneSpec.from_dict(json.loads(json.dumps(new.to_dict()))) == new
    old = scene(STILL).to_dict()
    del old["camera"]["legs"]
    assert SceneSpec.from_dict(old) == scene(STILL)


def test_the_layout_sees_what_the_camera_with_legs_sees():
    camera = replace(STILL, legs=(leg("pan left", end=0.5), leg("zoom in", 1.2, start=0.5)))
    layout = Layout(camera=camera, aspect=1.0, duration=3.0)
    k, pose = camera_path(scene(camera))
    point = torch.tensor([*layout.to_world(-1.0, 0.4), 0.0, 1.0])
    seen = (k @ (pose @ point)[:, :3, None])[..., 0]
    off = (seen[:, :2] / seen[:, 2:] / 128 - 0.5).abs().amax(-1)
    for span, frames in (((0.0, 3.0), slice(None)), ((0.0, 1.5), slice(0, 13)), ((1.5, 3.0), slice(12, None))):
        assert layout.kept(-1.0, 0.4, 0.0, span) == pytest.approx(0.5 - float(off[frames].max()), abs=1e-4)


@pytest.mark.parametrize(
    "bad, says",
    [
        (leg("spin"), "the move of a camera leg is 'spin'; use one of pan left"),
        (leg("pan up"), "the move of a camera leg is 'pan up'"),
        (leg("still"), "the move of a camera leg is 'still'"),
        (leg("pan left", 2.5), "use -2 to 2"),
        (leg("pan left", math.nan), "use -2 to 2"),
        (leg("pan left", 1.0, 0.5, 0.5), "lasts from 0.5 to 0.5"),
        (leg("pan left", 1.0, 0.5, 1.5), "lasts from 0.5 to 1.5"),
    ],
)
def test_refuses_legs(bad, says):
    with pytest.raises(ValueError, match=says):
        path(bad)


def test_refuses_a_dolly_through_what_it_looks_at():
    with pytest.raises(ValueError, match="dollies in by 1.40 of the distance"):
        path(leg("dolly in", 2.0), leg("dolly in", 2.0))
