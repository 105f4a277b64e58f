"""A photo that begins to move, on the command line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import adapters
from kinema import recipe
from kinema.backbones.load import load
from kinema.cli import run
from kinema.pictures import open_picture

SMALL = ["--num-inference-steps", "2", "--height", "32", "--width", "32", "--num-frames", "5", "--seed", "3", "--json"]


@pytest.fixture(scope="module")
def plain(tiny_folder, tmp_path_factory):
    """A small model that comes with no adapter."""
    folder = tmp_path_factory.mktemp("without") / "plain"
    shutil.copytree(tiny_folder("kinema_mini"), folder, ignore=shutil.ignore_patterns("adapters"))
    return str(folder)


@pytest.fixture(scope="module")
def model(tiny_folder):
    """One that comes with all of them."""
    return str(adapters.give(load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")).folder.path)


@pytest.fixture()
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 16:64] = (200, 100, 50)  # what stays when it is cut to a square
    Image.fromarray(wide).save("wide.png")
    Image.fromarray(wide[:, 20:60]).save("square.png")


def test_a_photo_is_cut_and_its_video_made_again(photos, model, capsys):
    told = ["animate", "wide.png", "a red ball rolls left", "--intensity", "8", *SMALL, "--model", model]
    assert run(told) == 0
    assert json.loads(capsys.readouterr().out)["num_frames"] == 5
    made = recipe.read("out.mp4")
    assert made["request"]["techniques"] == [{"name": "livephoto", "options": {"intensity": 8.0}}]
    first = np.asarray(open_picture(made["request"]["image"]))
    assert first.shape == (32, 32, 3) and np.abs(first.astype(int) - (200, 100, 50)).max() <= 2
    assert run(["generate", "--from", "out.mp4", "--out", "again.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True


def test_what_need_not_be_cut_stays_where_it_is(photos, model):
    for given in (["wide.png", "--stretch"], ["wide.png", "--width", "64"]):
        assert run(["animate", *given[:1], "a ball", *SMALL, *given[1:], "--model", model, "--out", "out.mp4"]) == 0
        made = recipe.read("out.mp4")["request"]
        assert made["image"] == given[0] and made["techniques"] == []


def test_what_cannot_be_done_is_told_in_one_sentence(photos, model, plain, tiny_folder, capsys):
    bare = str(tiny_folder("wan21_t2v"))
    capsys.readouterr()
    for words, says in [
        (["none.png", "a ball"], "photo 'none.png' does not exist; give the path of a picture"),
        (["square.png", "a ball", "--intensity", "11"], "--intensity is 11; use 0 (hardly anything moves) to 10"),
        (["square.png", "a ball", "--out", "square.png"], "square.png is read for it; choose another name"),
        (["square.png", "a ball", "--model", bare], "makes video from text alone; leave image out"),
        (["square.png", "a ball", "--intensity", "5", "--model", plain], "no adapter 'livephoto'"),
    ]:
        where = [] if "--model" in words else ["--model", model]
        assert run(["animate", *words, *SMALL, *where]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
