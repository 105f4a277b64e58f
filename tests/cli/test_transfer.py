"""`kinema transfer`: what moves like a clip, and what is kept of its motion."""

import json
import os

import numpy as np
import pytest

from kinema.cli import run
from kinema.recipe import read
from kinema.video import Video

SMALL = ["--num-frames", "5", "--height", "64", "--width", "64", "--num-inference-steps", "3", "--seed", "1"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8)
    Video(frames, fps=8.0).save("clip.mp4")
    return tmp_path


def told(capsys, *words):
    assert run(["transfer", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_motion_is_kept_and_used_again_and_the_recipe_makes_it_again(here, tiny_wan, capsys):
    small = [*SMALL, "--model", str(tiny_wan)]
    kept = ["--save-tables", "motion.safetensors", "--iterations", "1", "--lr", "0.01", "--until", "0.9"]
    told(capsys, "clip.mp4", "a red ball", *small, *kept, "--out", "a.mp4")
    (part,) = read("a.mp4")["request"]["techniques"][:1]
    assert part["name"] == "ditflow_positions"
    assert part["options"] == {
        "reference": "clip.mp4", "save": "motion.safetensors", "lr": [0.01, 0.005], "noise_range": [1.0, 0.9],
        "iterations": 1,
    }  # fmt: skip
    told(
        capsys, "clip.mp4", "a blue cube", *small, "--tables", "motion.safetensors", "--until", "0.9", "--out", "b.mp4"
    )
    assert set(read("b.mp4")["inputs"]) == {"reference of ditflow_positions", "tables of ditflow_positions"}
    assert run(["generate", "--from", "b.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True
    told(capsys, "clip.mp4", "a red ball", *small, "--no-inject", "--iterations", "1", "--out", "c.mp4")
    (part,) = read("c.mp4")["request"]["techniques"][:1]
    assert part == {"name": "ditflow", "options": {"reference": "clip.mp4", "inject": False, "iterations": 1}}


@pytest.mark.parametrize(
    "words, says",
    [
        (["none.mp4", "a ball"], "there is no file or folder none.mp4"),
        (["clip.mp4", "a ball", "--tables", "a", "--save-tables", "b"], "give one of them"),
        (["clip.mp4", "a ball", "--tables", "clip.mp4"], "--tables clip.mp4 cannot be read"),
        (["clip.mp4", "a ball", "--block", "7"], "--block is 7; use 0 to 1"),
        (["clip.mp4", "a ball", "--lr", "-1"], "--lr is -1; use a number above 0"),
        (["clip.mp4", "a ball", "--lr", "nan"], "--lr is nan; use a number above 0"),
        (["clip.mp4", "a ball", "--until", "2"], "--until is 2; use a noise level, 1 to 0"),
        (["clip.mp4", "a ball", "--save-tables", "clip.mp4"], "cannot write clip.mp4: clip.mp4 is read for it"),
    ],
)
def test_what_cannot_be_followed_is_told_in_one_sentence(here, tiny_wan, capsys, words, says):
    assert run(["transfer", *words, *SMALL, "--model", str(tiny_wan)]) == 2
    assert says in capsys.readouterr().err and os.listdir(here) == ["clip.mp4"]


def test_one_picture_has_no_motion(here, tiny_wan, capsys):
    Video(np.zeros((1, 32, 32, 3), np.uint8)).save("one.mp4")
    assert run(["transfer", "one.mp4", "a ball", *SMALL, "--model", str(tiny_wan)]) == 2
    assert capsys.readouterr().err == "kinema: one.mp4 has 1 frame; use a clip of 2 or more\n"
