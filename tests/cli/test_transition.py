"""From one clip to another on the command line."""

import json
from pathlib import Path

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
    for frames, says in [
        ("9", "transition gives all frames of the video; ask for a longer one, or give fewer"),
        ("10", "a.mp4 has 9 frames, and --frames is 10; use a longer clip, or less"),
        ("0", "--frames is 0; use 1 or more"),
    ]:
        assert run(["transition", "a.mp4", "b.mp4", "a ball", "--frames", frames, *SMALL, *model]) == 2
        assert capsys.readouterr().err == f"kinema: {says}\n"
    assert sorted(p.name for p in clips.iterdir()) == ["a.mp4", "b.mp4"]


INTO = ["--model", "mini", "--out"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["transition", "a.mp4", "b.mp4", "a ball", *INTO, "b.mp4"], "cannot write b.mp4: b.mp4 is read for it"),
        (["transition", "a.mp4", "link.mp4", "a ball", *INTO, "b.mp4"], "cannot write b.mp4: link.mp4 is read for it"),
        (["transfer", "a.mp4", "a ball", *INTO, "a.mp4"], "cannot write a.mp4: a.mp4 is read for it"),
        (["transfer", "pictures", "a ball", *INTO, "pictures"], "cannot write pictures: pictures is read for it"),
        (["generate", "a ball", "--video", "a.mp4", "--keep", "0:1", *INTO, "./a.mp4"], "a.mp4 is read for it"),
        (["generate", "a", "--image", "pictures/frame_0000.png", *INTO, "pictures"], "frame_0000.png is read for it"),
        (["generate", "a", "--technique", "seine:first=a.mp4", *INTO, "a.mp4"], "a.mp4 is read for it"),
        (["generate", "--from", "a.mp4", "--out", "a.mp4"], "a.mp4 is read for it"),
        (
            ["generate", "a", "--video", "pictures", "--sheet", "pictures/frame_0001.png", *INTO, "c.mp4"],
            "cannot write pictures/frame_0001.png: pictures is read for it; choose another name",
        ),
    ],
)
def test_nothing_is_written_over_what_is_read(clips, capsys, monkeypatch, words, says):
    made = Video.load("a.mp4")
    made.save(
        "a.mp4", {"kinema": {"format": 1, "request": {"prompt": "a"}, "versions": {}, "weights": {}, "inputs": {}}}
    )
    Video(made.frames, fps=8.0).save("pictures")
    (clips / "link.mp4").symlink_to("b.mp4")
    before = {path: path.read_bytes() for path in clips.rglob("*") if path.is_file()}
    monkeypatch.setattr("kinema.pipeline.take", None)  # it comes before any work
    assert run(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in clips.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option, name", [("--out", "a.mp4"), ("--sheet", "a.png")])
def test_a_folder_that_takes_no_file_is_known_before_any_work(clips, capsys, monkeypatch, option, name):
    monkeypatch.setattr("kinema.pipeline.take", None)
    folder = "/proc" if Path("/proc/self").exists() else "/dev/fd"
    assert run(["generate", "a ball", option, f"{folder}/{name}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: cannot write {folder}/{name}: the folder {folder} cannot be written")
    assert said.count("\n") == 1
    assert sorted(p.name for p in clips.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_clip_that_is_cut_short_is_refused(clips, tiny_folder, capsys):
    data = (clips / "a.mp4").read_bytes()
    (clips / "cut.mp4").write_bytes(data[: len(data) - 40])
    for words in (["transition", "cut.mp4", "b.mp4", "a"], ["transfer", "cut.mp4", "a"], ["extend", "cut.mp4", "a"]):
        assert run([*words, *SMALL[:6], "--model", str(tiny_folder("kinema_mini"))]) == 2
        assert f"cut.mp4 is cut short: {len(data) - 40} of at least {len(data)} bytes" in capsys.readouterr().err
    assert run(["classify", "cut.mp4", "a ball", "a cube"]) == 2
    assert "cut.mp4 is cut short" in capsys.readouterr().err
