"""`kinema edit` on a real clip: the same length, size, rate, cuts and sound; interrupted, gone on with, made again."""

import json
import os
import shutil

import numpy as np
import pytest

import adapters
import real_videos
from kinema.backbones.load import load
from kinema.cli import generate, options, run
from kinema.cli.edit import FIELDS
from kinema.core.errors import KinemaError
from kinema.layers.source import Source
from kinema.video import Video


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    found = shutil.copytree(tiny_folder("kinema_mini"), tmp_path_factory.mktemp("given") / "model")
    card = {"given": {"first": 1, "first_k": 1}, "defaults": {"num_frames": 9, "height": 32, "width": 32, "fps": 4}}
    (found / "card.json").write_text(json.dumps(card))
    adapters.give(load(found, device="cpu", dtype="float32"))
    return ["--model", str(found), "--num-inference-steps", "1", "--seed", "3", "--guidance-scale", "1"]


@pytest.fixture(scope="module")
def bunny(tmp_path_factory):
    """Eleven frames of bigbuckbunny and seven of another place in it, with a sound."""
    here, there = (real_videos.piece("bigbuckbunny.mp4", count, at, rows=54) for count, at in ((11, 0), (7, 100)))
    sound = np.linspace(-0.5, 0.5, 16000, dtype=np.float32)
    path = tmp_path_factory.mktemp("bunny") / "bunny.mp4"
    Video(np.concatenate([here.frames, 255 - there.frames]), fps=25, sound=sound, sample_rate=16000).save(path)
    return str(path)


@pytest.fixture()
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_real_clip_comes_out_as_it_went_in_even_when_interrupted(here, model, bunny, capsys, monkeypatch):
    source = Video.load(bunny)
    asked = ["edit", bunny, "a blue cube", "--fidelity", "0.9", *model]
    assert run([*asked, "--out", "a.mp4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = Video.load("a.mp4")
    assert (made.frames.shape, made.fps) == (source.frames.shape, source.fps) == ((18, 54, 96, 3), 25.0)
    assert len(made.sound) / made.sample_rate == pytest.approx(18 / 25, abs=0.1) and np.abs(made.sound).max() > 0.1
    assert Source.open(bunny).survey.shots == ((0, 11), (11, 18))
    assert (told["num_frames"], told["height"], told["width"]) == (18, 54, 96)
    assert json.loads((here / "a.json").read_text())["kinema"]["request"]["height"] == 32

    seen = []

    def stopping(self, phase, done, count):
        seen.append(phase)
        if phase == "sample" and seen.count("sample") == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(generate.Stopwatch, "__call__", stopping)
        assert run([*asked, "--out", "b.mp4"]) == 130
    assert sorted(os.listdir(here)) == ["a.json", "a.mp4", "b.mp4.part"]
    assert run([*asked, "--out", "b.mp4"]) == 0
    assert "going on behind 2 finished chunks" in capsys.readouterr().err
    assert (here / "b.mp4").read_bytes() == (here / "a.mp4").read_bytes()
    assert run(["generate", "--from", "b.mp4", "--out", "c.mp4"]) == 0
    assert "the same frames as the first time, bit for bit" in capsys.readouterr().out
    assert (here / "c.mp4").read_bytes() == (here / "a.mp4").read_bytes()


def test_a_picture_tells_the_content_and_the_beginning_may_be_edited_alone(here, model, bunny):
    Video(Video.load(bunny).frames[:1], fps=1).save("picture")
    picture = str(next((here / "picture").glob("*.png")))
    steady = ["--temporal-scale", "1.2", "--technique", "controlvideo", "--num-inference-steps", "3"]
    asked = ["--content", picture, "--seconds", "0.2", "--out", "a.gif"]
    assert run(["edit", bunny, *asked, *model, *steady]) == 0
    assert len(Video.load("a.gif")) == 5
    made = json.loads((here / "a.json").read_text())["kinema"]
    assert set(made["inputs"]) == {"source of gen1", "content of gen1"}


def test_a_model_without_an_adapter_tells_how_to_get_one(here, tiny_wan, bunny, capsys):
    assert run(["edit", bunny, "a cube", "--model", str(tiny_wan), "--adapter", "nowhere"]) == 2
    assert "there is no file or folder nowhere" in capsys.readouterr().err
    (here / "empty").mkdir()
    assert run(["edit", bunny, "a cube", "--model", str(tiny_wan), "--adapter", "empty"]) == 2
    assert "there is no adapter in empty" in capsys.readouterr().err
    with pytest.raises(KinemaError) as told, options.in_words("edit", "gen1", **FIELDS):
        raise KinemaError("no adapter 'gen1'; use `kinema train adapter gen1` and gen1:adapter=FOLDER, or gen1 fails")
    wanted = "no adapter 'gen1'; use `kinema train adapter gen1` and --adapter FOLDER, or edit fails"
    assert str(told.value) == wanted


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "nothing says what the edited video shows"),
        (["a cube", "--content", "CLIP"], "told by a picture, and there is a prompt"),
        (["a cube", "--fidelity", "1.5"], "--fidelity is 1.5"),
        (["a cube", "--structure", "light"], "--structure is 'light'; use one of depth, edges, grey, flow"),
        (["a cube", "--overlap", "3"], "overlap is 3 in passes of 9 frames"),
        (["a cube", "--seconds", "9"], "225 frames of the clip are to be edited, and it has 18 frames, 0.72 s"),
        (["a cube", "--out", "CLIP"], "clip.mp4 is read for it; choose another name"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(words, says, here, model, bunny, capsys):
    shutil.copy(bunny, "clip.mp4")
    words = [word.replace("CLIP", "clip.mp4") for word in words]
    out = [] if "--out" in words else ["--out", "a.mp4"]
    assert run(["edit", "clip.mp4", *words, *model, *out]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1
    assert os.listdir(here) == ["clip.mp4"]
