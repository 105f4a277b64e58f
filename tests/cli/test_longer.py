"""Videos of several chunks on the command line: interrupted, gone on with, made again, and videos that go on."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from kinema.cli import run
from kinema.cli.extend import behind
from kinema.core.rollout import Finished
from kinema.parts import Parts
from kinema.request import Request
from kinema.video import Video

SMALL = ["--num-inference-steps", "2", "--height", "32", "--width", "32"]
LONG = ["generate", "a red ball rolls, then a blue cube jumps", *SMALL, "--num-frames", "17"]
LONG += ["--technique", "continuation:frames=9", "--out", "a.mp4"]
KILLED = """
import os, signal, sys
import kinema.cli.generate as generate
from kinema.cli import run

told = []
def killing(self, phase, done, count):
    told.append(phase)
    if (phase, done) == ("sample", 1) and told.count("sample") > 4:
        os.kill(os.getpid(), signal.SIGKILL)

generate.Stopwatch.__call__ = killing
run(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    found = shutil.copytree(tiny_folder("kinema_mini"), tmp_path_factory.mktemp("given") / "model")
    card = {"given": {"first": 1, "first_k": 1}, "defaults": {"num_frames": 9, "height": 32, "width": 32, "fps": 4}}
    (found / "card.json").write_text(json.dumps(card))
    return ["--model", str(found)]


@pytest.fixture()
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_killed_video_goes_on_and_is_what_its_recipe_makes(here, model, capsys):
    subprocess.run([sys.executable, "-c", KILLED, *LONG, *model], check=False)
    assert os.listdir(here) == ["a.mp4.part"]
    kept = sorted(p.name for p in (here / "a.mp4.part").iterdir() if not p.name.startswith("."))
    assert kept == ["chunk_0000.safetensors", "chunk_0001.safetensors", "video.json"]
    drawn = json.loads((here / "a.mp4.part" / "video.json").read_text())["seed"]

    assert run([*LONG, *model, "--seed", str(drawn + 1)]) == 2 and run([*LONG, *model, "--guidance-scale", "3"]) == 2
    assert "holds 2 finished chunks of a video of another request; ask for that one again" in capsys.readouterr().err

    assert run([*LONG, *model, "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == "kinema: going on behind 2 finished chunks\n"
    assert told["seed"] == drawn and told["num_frames"] == 17 and sorted(os.listdir(here)) == ["a.json", "a.mp4"]

    assert run(["generate", "--from", "a.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True
    assert (here / "again.mp4").read_bytes() == (here / "a.mp4").read_bytes()


def test_an_interrupted_video_says_how_to_go_on(here, model, capsys, monkeypatch):
    told = []

    def pressed(self, phase, done, count):
        told.append((phase, done, count))
        if [p for p, *_ in told].count("sample") == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("kinema.cli.generate.Stopwatch.__call__", pressed)
        assert run([*LONG, *model, "--seed", "5"]) == 130
    said = "kinema: interrupted; finished chunks (1) are kept in a.mp4.part, and the same command goes on behind them\n"
    assert capsys.readouterr().err == said
    assert os.listdir(here) == ["a.mp4.part"]
    assert sorted(os.listdir("a.mp4.part")) == ["chunk_0000.safetensors", "video.json"]
    chunk = here / "a.mp4.part" / "chunk_0000.safetensors"
    data = bytearray(chunk.read_bytes())
    data[-400] ^= 0x40  # in the latents
    chunk.write_bytes(data)
    assert run([*LONG, *model, "--seed", "5"]) == 0 and not (here / "a.mp4.part").exists()
    assert "going on" not in capsys.readouterr().err
    assert run([*LONG, *model, "--seed", "5", "--out", "b.mp4"]) == 0
    assert (here / "a.mp4").read_bytes() == (here / "b.mp4").read_bytes()


@pytest.mark.parametrize("handed, left", [(False, [0, 2]), (True, [])])
@pytest.mark.parametrize("broken", [b"", None])
def test_a_broken_chunk_is_made_anew_and_all_where_what_it_was_handed_is_gone(here, handed, left, broken):
    request = Request(prompt="a", seed=1)

    def opened():
        parts = Parts("a.mp4", request)
        parts.bind({"request": request.model_dump(mode="json"), "versions": {}, "weights": {}, "inputs": {}})
        return parts

    parts = opened()
    for i in range(3):
        carried = [{"noise": torch.full((2,), i)}] if handed and i < 2 else [{}] if i < 2 else []
        parts.save(i, Finished({"latents": torch.full((3,), float(i))}, carried))
    assert [opened().load(i).tensors["latents"][0].item() for i in range(3)] == [0, 1, 2] and opened().count == 3
    chunk = here / "a.mp4.part" / "chunk_0001.safetensors"
    chunk.unlink() if broken is None else chunk.write_bytes(broken)
    again = opened()
    assert [i for i in range(3) if again.load(i) is not None] == left and again.count == len(left)


def test_other_things_in_the_way_are_left_alone(here, model, capsys):
    (here / "a.mp4.part").mkdir()
    (here / "a.mp4.part" / "mine.txt").write_text("mine")
    assert run([*LONG, *model]) == 2
    assert "a.mp4.part is in the way of the chunks of a.mp4; choose another name" in capsys.readouterr().err
    assert (here / "a.mp4.part" / "mine.txt").read_text() == "mine"


def test_a_video_goes_on_with_its_sound(here, model, capsys):
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (12, 1, 1, 3), np.uint8), 32, axis=1).repeat(32, axis=2)
    sound = np.sin(np.arange(24_000) / 20).astype(np.float32)
    Video(frames, fps=8.0, sound=sound, sample_rate=16_000).save("clip.mp4")
    told = ["extend", "clip.mp4", "a red ball rolls", "--seconds", "3", *SMALL, *model, "--seed", "1"]
    assert run([*told, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["path"], answer["num_frames"], answer["fps"]) == ("clip-longer.mp4", 6 + 12, 4.0)
    longer = Video.load("clip-longer.mp4")
    assert longer.metadata["kinema"]["given"] == [[0, 6]] and longer.metadata["kinema"]["opening"] == 6
    assert len(longer) == 18 and abs(len(longer.sound) / 16_000 - 4.5) < 0.1
    assert np.abs(longer.frames[:6].astype(int) - frames[::2]).mean() < 6
    assert longer.sound[2_000:22_000].std() > 0.5 and np.abs(longer.sound[26_000:]).max() < 0.01
    assert run(["generate", "--from", "clip-longer.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True


def test_a_prompt_goes_on_from_that_of_the_clip(here, model, capsys):
    asked = "a red ball rolls on the grass at night"
    assert run(["generate", asked, *SMALL, *model, "--num-frames", "9", "--out", "a.mp4"]) == 0
    capsys.readouterr()
    assert run(["extend", "a.mp4", "it bounces, then a cube falls", "--seconds", "2", *SMALL, *model]) == 0
    read = "the red ball bounces on the grass at night, then a cube falls on the grass at night"
    assert f"goes on from {asked!r}: {read}\n" in capsys.readouterr().err
    assert json.loads((here / "a-longer.json").read_text())["kinema"]["request"]["prompt"] == read
    assert behind("a-longer.mp4", "it stops") == "the cube stops on the grass at night"
    assert behind("a.mp4", asked) == asked and behind("a.mp4", None) is None
    Video(np.zeros((9, 32, 32, 3), np.uint8), fps=8.0).save("clip.mp4")
    assert behind("clip.mp4", "it stops, then falls") == "it stops, then falls"


@pytest.mark.parametrize(
    "words, says",
    [
        (["none.mp4"], "there is no file or folder none.mp4"),
        (["clip.mp4", "--out", "clip.mp4"], "cannot write clip.mp4: clip.mp4 is read for it; choose another name"),
        (["clip.mp4", "0-1s: a ball rolls | 1-2s: it jumps"], "the prompt gives times"),
        (["clip.mp4", "--seconds", "0"], "seconds of continuation is 0; use more than 0"),
        (["clip.mp4", "--overlap", "9", "--frames", "13"], "the clip has 6 frames, and overlap of continuation is 9"),
    ],
)
def test_what_cannot_go_on_is_told_in_one_sentence(here, model, capsys, words, says):
    Video(np.zeros((12, 32, 32, 3), np.uint8), fps=8.0).save("clip.mp4")
    assert run(["extend", *words, *model]) == 2
    assert says in capsys.readouterr().err and os.listdir(here) == ["clip.mp4"]
