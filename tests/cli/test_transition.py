"""From one clip to another on the command line."""

import json

import numpy as np
import pytest

from kinema import recipe
from kinema.cli import run
from kinema.video import Video

SMALL = ["--num-inference-steps", "2", "--height", "32", "--width", "32", "--num-frames", "21"]


@pytest.fixture()
def clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, level in (("a", 30), ("b", 220)):
        Video(np.full((9, 32, 32, 3), level, np.uint8), fps=8.0).save(f"{name}.mp4")
    return tmp_path


def test_a_transition_is_made_and_made_again(clips, tiny_folder, capsys):
    told = ["transition", "a.mp4", "b.mp4", "a red ball rolls", *SMALL, "--model", str(tiny_folder("kinema_mini"))]
    assert run([*told, "--frames", "5", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] == 21
    made = recipe.read("transition.mp4")
    assert made["given"] == [[0, 5], [13, 21]] and "opening" not in made
    assert sorted(made["inputs"]) == ["first of seine", "second of seine"]
    assert run(["generate", "--from", "transition.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True


def test_what_is_no_clip_is_told_in_one_sentence(clips, tiny_folder, capsys):
    model = ["--model", str(tiny_folder("kinema_mini"))]
    assert run(["transition", "a.mp4", "none.mp4", "a ball", *SMALL, *model]) == 2
    assert "there is no file or folder none.mp4" in capsys.readouterr().err
    assert run(["transition", "a.mp4", "b.mp4", "a ball", "--frames", "9", *SMALL, *model]) == 2
    assert "seine gives all frames of the video" in capsys.readouterr().err
    assert sorted(p.name for p in clips.iterdir()) == ["a.mp4", "b.mp4"]
