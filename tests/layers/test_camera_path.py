"""Camera paths from words: the same moves as the world's, in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from kinema.core.camera import FOCAL, LOOK_AT, CameraLeg
from kinema.core.errors import KinemaError
from kinema.layers.camera_path import DISTANCE, HEIGHT, in_words, parse
from kinema.world.cameras import camera_path
from kinema.world.spec import CameraSpec, SceneSpec


def path(text, frames=25, height=64, width=96, fps=8.0):
    return parse(text, frames, height, width, fps)


def eyes(p):
    """Centres in the frame of the first camera (T, 3)."""
    return -(p.world_to_camera[:, :3, :3].mT @ p.world_to_camera[:, :3, 3:])[..., 0]


def turn(p, i=-1):
    """Right, down and forward (rows) of a camera, seen from the first."""
    return p.world_to_camera[i, :3, :3]


def target(p):
    """The point looked at, from the first camera: straight ahead."""
    return torch.tensor([0.0, 0.0, DISTANCE])


@pytest.mark.parametrize("text", ["static", " Still ", "static, then static"])
def test_static(text):
    p = path(text)
    assert torch.equal(p.world_to_camera, torch.eye(4).expand(25, 4, 4))
    focal = FOCAL * 64
    k = torch.tensor([[focal, 0, 48], [0, focal, 32], [0, 0, 1]])
    assert torch.equal(p.intrinsics, k.expand(25, 3, 3))


@pytest.mark.parametrize(
    "text, legs",
    [
        ("orbit", [("orbit left", 1.0, 0, 1)]),
        ("orbit right", [("orbit right", 1.0, 0, 1)]),
        ("pan left, then zoom out", [("pan left", 1.0, 0, 0.5), ("zoom out", 1.0, 0.5, 1)]),
        ("Tilt up then rise", [("tilt up", 1.0, 0, 0.5), ("rise", 1.0, 0.5, 1)]),
        ("tilt down + dolly in", [("tilt down", 1.0, 0, 1), ("dolly in", 1.0, 0, 1)]),
        ("dolly out | static | pan right", [("dolly out", 1.0, 0, 1 / 3), ("pan right", 1.0, 2 / 3, 1)]),
        ("rise down", [("rise", -0.75, 0, 1)]),
        ("0-1.5s pan left, 1.5-3s: tilt up", [("pan left", 1.0, 0, 0.5), ("tilt up", 1.0, 0.5, 1)]),
        ("0.3s to 3.1s pan left + zoom", [("pan left", 1.0, 0.1, 1), ("zoom in", 1.0, 0.1, 1)]),
    ],
)
def test_words_and_usual_sizes_are_those_of_the_world(text, legs):
    camera = CameraSpec(
        distance=DISTANCE,
        height=HEIGHT,
        legs=tuple(CameraLeg(move=m, amount=a, start=s, end=e) for m, a, s, e in legs),
    )
    spec = SceneSpec(seed=0, objects=(), events=(), camera=camera, height=64, width=96)
    k, poses = camera_path(spec)
    p = path(text)
    assert torch.allclose(p.intrinsics, k, rtol=1e-5)
    assert torch.allclose(p.world_to_camera @ poses[0], poses, atol=1e-5)
    assert torch.allclose(p.world_to_camera[0], torch.eye(4), atol=1e-6)


def test_sizes_are_degrees_metres_and_factors():
    orbit = path("orbit left:40deg")
    assert torch.allclose((eyes(orbit) - target(orbit)).norm(dim=-1), torch.full((25,), DISTANCE), atol=1e-4)
    away = math.sqrt(DISTANCE**2 - (HEIGHT - LOOK_AT[2]) ** 2)
    assert eyes(orbit)[-1].norm() == pytest.approx(2 * away * math.sin(math.radians(20)), abs=1e-4)
    assert eyes(orbit)[-1, 0] < 0 and eyes(path("orbit right:40deg"))[-1, 0] > 0
    assert torch.allclose(path("orbit left:-40deg").world_to_camera, path("orbit right 40 degrees").world_to_camera)
    tilt = path("tilt up:10deg")
    assert torch.acos(turn(tilt)[2, 2]) == pytest.approx(math.radians(10), abs=1e-4) and turn(tilt)[2, 1] < 0
    assert not eyes(tilt).abs().gt(1e-5).any()
    assert turn(path("pan left:20deg"))[2, 0] < 0 < turn(path("pan right:20deg"))[2, 0]
    assert path("zoom in:1.7x").intrinsics[-1, 0, 0] == pytest.approx(1.7 * FOCAL * 64, rel=1e-5)
    assert path("zoom out:2x").intrinsics[-1, 1, 1] == pytest.approx(FOCAL * 32, rel=1e-5)
    assert torch.allclose(eyes(path("dolly in:2m"))[-1], torch.tensor([0.0, 0.0, 2.0]), atol=1e-4)
    assert torch.allclose(eyes(path("dolly out:1.5 metres"))[-1], torch.tensor([0.0, 0.0, -1.5]), atol=1e-4)
    assert eyes(path("rise:1.5m"))[-1].norm() == pytest.approx(1.5, abs=1e-4)
    assert eyes(path("rise down"))[-1].norm() == pytest.approx(1.5, abs=1e-4)


def test_one_frame_and_other_sizes():
    p = path("orbit:40deg + zoom in:2x", frames=1)
    assert torch.equal(p.world_to_camera, torch.eye(4)[None]) and p.intrinsics[0, 0, 0] == FOCAL * 64
    long = path("0-5s orbit", frames=81, fps=16.0)
    assert torch.allclose(long.world_to_camera[-1], path("orbit").world_to_camera[-1], atol=1e-5)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "nothing says how the camera moves"),
        ("pan left," * 500, "has 4500 characters"),
        ("orbt:40deg", "did you mean 'orbit'?"),
        ("wiggle", "use one of static, pan, tilt, zoom, dolly, orbit, rise"),
        ("pan up", "use pan left or pan right"),
        ("pan left:2m", "is given in deg, not in 'm'; for example pan:22deg"),
        ("pan left:deg", "cannot be read; write it as in"),
        ("pan left,", "says no move before or behind a ','"),
        ("pan left:nan", "cannot be read"),
        ("zoom in:0x", "the camera zooms by 0x; use 0.2x to 8x"),
        ("zoom in:4x + zoom in:4x", "zoom comes to 16x in all"),
        ("rise down:3m", "rise comes to -3m in all"),
        ("dolly in:4m, dolly in:4m", "dolly comes to 8m in all"),
        ("tilt up:80deg", "use -75 to 75deg"),
        ("0-1s pan left, tilt up", "for all or for none"),
        ("0-4s pan left", "from 0s to 4s and the video is 3.125s long"),
        ("2-1s pan left", "let each move end after its start"),
        ("3.1-3.12s pan left", "let each move end after its start"),
    ],
)
def test_refuses(text, says):
    with pytest.raises(KinemaError) as caught:
        path(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_times_of_a_picture_are_refused():
    with pytest.raises(KinemaError, match="the video is 0.125s long"):
        path("0-0.1s pan left", frames=1)


@pytest.mark.parametrize(
    "text, words",
    [
        ("orbit:40deg", "the camera orbits left"),
        ("pan left:-20deg + zoom in:1.3x", "the camera pans right and zooms in"),
        ("1-2s pan left, 0-1s rise", "the camera rises, then pans left"),
        ("zoom in:1x, then pan left", "the camera pans left"),
        ("tilt up, then rise:-1m", ""),
        ("0-1s dolly in:2m, 0.5-2s zoom out", "the camera dollies in and zooms out"),
        ("static", ""),
        ("poses.json", ""),
    ],
)
def test_a_path_in_words(text, words):
    assert in_words(text, 25, 8.0) == words
