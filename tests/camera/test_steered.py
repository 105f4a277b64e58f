"""A camera that is asked for: what its networks are told, and the same on the command line."""

import json
from types import SimpleNamespace

import pytest
import torch

import adapters
from kinema import recipe
from kinema.backbones.load import load
from kinema.camera.ac3d import AC3D
from kinema.camera.steered import latent_rays, speaks, told
from kinema.cli import run
from kinema.core.chunks import Chunk
from kinema.core.rollout import placed
from kinema.layers.camera_path import parse

SMALL = ["--num-inference-steps", "3", "--height", "32", "--width", "32", "--num-frames", "9", "--seed", "3", "--json"]


def rays(camera):
    path = parse(camera, 9, 32, 32, 8.0)
    return latent_rays(path.intrinsics[None], path.world_to_camera[None], 32, 32, (3, 2, 2), 4)


def test_a_camera_is_told_by_what_changes():
    """Per frame of a latent frame six changes, then where the first frame looks."""
    still, moved = told(rays("static")), told(rays("dolly in:2m"))
    assert still.shape == (1, 6 * 4 + 3, 3, 2, 2)
    assert not still[:, :24].any() and torch.equal(still[:, 24:], rays("static")[:, 3:6])
    assert torch.equal(moved[:, 24:], still[:, 24:]) and not moved[:, :24, 0].any()
    last = moved[0, 18:24, 2]  # the last frame is 2 m ahead: o x d with o = (0, 0, 2) is (-2 dy, 2 dx, 0)
    dx, dy, _ = rays("static")[0, 3:6, 0]
    assert torch.allclose(last, torch.stack([-2 * dy, 2 * dx, *torch.zeros(4, 2, 2)]), atol=1e-5)


def test_directions_count_five_times():
    turned = rays("pan left:20deg")
    assert torch.allclose(told(turned)[:, 21:24], 5 * (turned[:, 21:24] - turned[:, 3:6, :1]), atol=1e-6)


def test_a_part_of_a_long_video_sees_its_part_of_the_path():
    conditions = SimpleNamespace(shape=(1, 4, 3, 2, 2), num_frames=9, fps=8.0)
    backbone = SimpleNamespace(pixels_per_cell=16, frames_per_latent=4)
    run = SimpleNamespace(conditions=conditions, backbone=backbone, chunk=Chunk(request=None, first=8, frames=17))
    path = parse("pan left:40deg", 17, 32, 32, 8.0)
    whole = (path.intrinsics[None], path.world_to_camera[None])
    expected = latent_rays(*(u[:, 8:] for u in whole), 32, 32, (3, 2, 2), 4)
    assert torch.equal(AC3D(camera="pan left:40deg").given(run)["rays"], expected)
    assert not torch.allclose(expected, rays("pan left:40deg"))


def test_chunks_know_where_they_are():
    chunks = [Chunk(request=None, overlap=n, shown=shown) for n, shown in ((0, 9), (5, 4), (5, 4))]
    assert [(c.index, c.first, c.frames) for c in placed(chunks)] == [(0, 0, 17), (1, 4, 17), (2, 8, 17)]


@pytest.fixture(scope="module")
def model(tiny_folder):
    """One that comes with all adapters."""
    return adapters.give(load(tiny_folder("kinema_mini"), device="cpu", dtype="float32"))


@pytest.fixture()
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turn = parse("pan left:20deg", 9, 32, 32, 8.0).world_to_camera
    (tmp_path / "poses.json").write_text(json.dumps({"world_to_camera": turn.tolist()}))


@pytest.mark.parametrize("words", (["orbit:40deg"], ["pan left, then tilt up", "--technique", "vd3d"], ["poses.json"]))
def test_a_video_is_steered_and_made_again(words, here, model, capsys):
    place = ["--model", str(model.folder.path)]
    assert run(["generate", "a red ball", "--camera", *words, *SMALL, *place, "--out", "out.mp4"]) == 0
    capsys.readouterr()
    assert recipe.read("out.mp4")["request"]["camera"] == words[0]
    assert run(["generate", "--from", "out.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True
    assert run(["generate", "a red ball", *SMALL, *place, "--out", "plain.mp4"]) == 0
    assert recipe.read("plain.mp4")["frames"] != recipe.read("out.mp4")["frames"]


def test_a_prompt_is_told_what_helps(here, model, caplog):
    asked = [*SMALL, "--camera", "pan left", "--model", str(model.folder.path), "--out", "out.mp4"]
    for prompt, helped in (("a red ball", True), ("a red ball, the camera pans left", False)):
        assert run(["generate", prompt, *asked]) == 0
        assert ("follows its path better with ', the camera pans left'" in caplog.text) == helped
        caplog.clear()


@pytest.mark.parametrize(
    "prompt, says",
    [("a ball rolls towards the camera", False), ("a ball. Camera pans left", True), ("crane shot of a ball", True)],
)
def test_what_speaks_of_the_camera(prompt, says):
    assert speaks(prompt) == says and speaks("")


def test_what_cannot_be_steered_is_told_in_one_sentence(here, model, tiny_folder, capsys):
    bare, own = ["--model", str(tiny_folder("wan21_t2v"))], ["--model", str(model.folder.path)]
    capsys.readouterr()  # of the models that are built
    for words, says in [
        (["sideways", *own], "there is no camera move 'sideways'"),
        (["none.json", *own], "none.json"),
        (["pan left", "--technique", "ac3d:camera=rise", *own], "camera is 'pan left', and a technique's 'rise'"),
        (["pan left", *bare], "comes with no adapter that follows a camera; train one with `kinema train adapter"),
    ]:
        assert run(["generate", "a red ball", *SMALL, "--camera", *words]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
