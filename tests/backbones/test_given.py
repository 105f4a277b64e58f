"""Frames that are given: how they are named, how they become clean latent frames, and that they stay."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from kinema.backbones.load import load
from kinema.core import keep
from kinema.core.errors import KinemaError
from kinema.core.keep import Kept, kept, latent_frames, pattern
from kinema.core.loop import denoise
from kinema.request import Request
from kinema.video import Video, clip_address, open_clip


@pytest.mark.parametrize(
    "text, frames, length, parts",
    [
        ("0:5", 25, 25, [Kept(0, 5)]),
        (":5", 25, 5, [Kept(0, 5)]),
        ("0:5,-4:", 25, 25, [Kept(0, 5), Kept(21, 25)]),
        ("-4:,0:5", 25, 9, [Kept(0, 5), Kept(21, 25, -16)]),  # frames 5 to 8 of a clip of 9 are the last of the video
        ("-4:", 25, 40, [Kept(21, 25, 15)]),
        ("0,1:5,9:13", 25, 13, [Kept(0, 5), Kept(9, 13)]),  # touching parts are one
        ("5:-16", 25, 9, [Kept(5, 9)]),
        (None, 25, 9, [Kept(0, 9)]),
    ],
)
def test_parts_of_a_clip(text, frames, length, parts):
    assert kept(text, frames, length) == parts


@pytest.mark.parametrize(
    "text, length, says",
    [
        ("five", 25, "keep is 'five'; name frames as in 0:5"),
        ("0:5:2", 25, "name frames as in"),
        ("", 25, "name frames as in"),
        ("5:5", 25, "does not fit into a video of 25 frames; use frames 0 to 24"),
        ("0:26", 40, "does not fit"),
        ("0:9", 5, "names frames that the clip does not have; it has 5"),
        ("-9:", 5, "names frames that the clip does not have; it has 5"),
        ("0:9,-20:-12", 24, "gives frame 5 of the video twice"),
        (":", 25, "is all 25 frames of the video; leave some to be made"),
        (None, 25, "say with keep which of them stay"),
    ],
)
def test_parts_that_cannot_be_kept(text, length, says):
    with pytest.raises(KinemaError, match=says):
        kept(text, 25, length)


def test_only_whole_latent_frames():
    assert [latent_frames(Kept(*part), 4) for part in ((0, 1), (0, 5), (1, 5), (21, 25), (9, 17))] == [
        (0, 1), (0, 2), (1, 2), (6, 7), (3, 5)
    ]  # fmt: skip
    for part, instead in (((0, 4), "0:5"), ((0, 2), "0:5"), ((22, 25), "21:25"), ((4, 9), "1:9")):
        with pytest.raises(KinemaError, match=f"keep {instead}, or less"):
            latent_frames(Kept(*part), 4)


def test_what_a_card_calls_a_pattern():
    names = {"1000": "first", "1110": "first_k", "0001": "last", "1001": "first_and_last", "0110": "any", "0011": "any"}
    assert (pattern([True]), pattern([True, True])) == ("first", "first_and_last")
    assert {given: pattern([digit == "1" for digit in given]) for given in names} == names


def test_a_clip_in_memory_keeps_every_bit():
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
    frames[2] = frames[1]  # a frame that repeats is a frame
    assert np.array_equal(open_clip(clip_address(frames)), frames)
    with pytest.raises(KinemaError, match="holds no pictures"):
        open_clip("data:image/png;base64,AAAA")


@pytest.fixture(scope="module")
def learned(tiny_folder, tmp_path_factory):
    """A tiny model whose card says that it has learned clean frames anywhere."""
    folder = tmp_path_factory.mktemp("given") / "model"
    shutil.copytree(tiny_folder("kinema_mini"), folder)
    (folder / "card.json").write_text(json.dumps({"given": {"any": 1.0, "last": 0.0}}))
    return load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(1).integers(0, 256, (17, 32, 64, 3), np.uint8)


def asked(clip, text, **fields):
    given = dict(video=clip_address(clip), keep=text, num_frames=17, height=32, width=64)
    return Request(prompt="a red ball", num_inference_steps=3, seed=0, **given | fields)


@pytest.mark.parametrize(
    "text, there", [("0:5", "11000"), ("-4:", "00001"), ("0:1,13:17", "10001"), ("5:9,-4:", "00101"), ("0", "10000")]
)
def test_given_frames_are_those_of_the_clip_and_stay(learned, frames, text, there):
    latents, conditions = denoise(learned, asked(frames, text))
    given = torch.tensor([digit == "1" for digit in there])
    whole = learned.encode(torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1)
    assert torch.equal(conditions.known_frames.flatten(), given)
    assert torch.equal(latents[:, :, given], conditions.known[:, :, given])
    torch.testing.assert_close(latents[:, :, given], whole[:, :, given])
    assert not torch.isclose(latents[:, :, ~given], whole[:, :, ~given]).any(dim=1).all()


def test_a_short_clip_stands_still_before_its_end(learned, frames):
    short = frames[:9]  # five frames for the start, four for the end
    known = learned.prepare([asked(short, "0:5,-4:")]).known
    video = torch.from_numpy(np.concatenate([short[5:6], short[5:]])).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(known[:, :, -1:], learned.encode(video)[:, :, -1:])
    whole = torch.from_numpy(short[:5]).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(known[:, :, :2], learned.encode(whole))


def test_a_short_clip_has_the_frames_before_a_part_of_its_own(learned, frames):
    known = learned.prepare([asked(frames[:9], "5:9")]).known
    video = torch.from_numpy(frames[:9].copy()).permute(3, 0, 1, 2)[None] / 127.5 - 1
    torch.testing.assert_close(known[:, :, 2:3], learned.encode(video)[:, :, 2:3])


def test_a_first_frame_of_a_clip_is_a_first_picture(learned, frames):
    picture = clip_address(frames[:1])
    both = learned.prepare([asked(frames, "0:1")]), learned.prepare([asked(frames, None, video=None, image=picture)])
    assert torch.equal(both[0].known, both[1].known) and torch.equal(both[0].known_frames, both[1].known_frames)


@pytest.mark.parametrize(
    "text, says",
    [
        ("0:4", "frames 0 to 3 cut a latent frame in two"),
        ("0:5", "has learned clips whose clean latent frames are first, first and last; asked for is first k"),
        ("-4:", "asked for is last"),
    ],
)
def test_refuses_what_was_not_learned(tiny_folder, tmp_path, frames, text, says):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("kinema_mini"), folder)
    (folder / "card.json").write_text(json.dumps({"takes_last_image": True}))
    with pytest.raises(KinemaError, match=says):
        load(folder, device="cpu", dtype="float32").prepare([asked(frames, text)])


def test_refuses_clips_elsewhere(tiny_folder, learned, frames):
    with pytest.raises(KinemaError, match="keeps no frames of a clip"):
        load(tiny_folder("wan21_t2v"), device="cpu").prepare([asked(frames, "0:5")])
    with pytest.raises(KinemaError, match="keep other frames"):
        learned.prepare([asked(frames, "0:5"), asked(frames, "0:9")])
    for fields, says in (
        (dict(keep="0:5"), "there is no video"),
        (dict(video="a.mp4", image="a.png"), "a video and a picture"),
        (dict(video="a.mp4", keep="x"), "name frames"),
    ):
        with pytest.raises(KinemaError, match=says):
            Request(prompt="a", **fields)
    keep.check("0:5, -4:")


def test_vace_is_told_any_frames(tiny_folder, frames):
    backbone = load(tiny_folder("wan21_vace"), device="cpu", dtype="float32")
    control = backbone.prepare([asked(frames[:9], "0:2,-2:", num_frames=9)]).inputs["control"]
    video = torch.from_numpy(frames[:9].copy()).permute(3, 0, 1, 2)[None] / 127.5 - 1
    video[:, :, 2:7] = 0
    torch.testing.assert_close(control[:, :16], backbone.encode(video))


def test_a_whole_run_writes_down_its_clip(learned, frames, tmp_path):
    import kinema

    Video(frames, fps=8).save(tmp_path / "clip")  # pictures, which lose nothing
    made = [
        kinema.generate("a red ball", model=learned, video=video, keep="0:5", num_frames=17, height=32, width=64,
                        num_inference_steps=1, seed=0)
        for video in (tmp_path / "clip", frames, Video(frames, fps=8))
    ]  # fmt: skip
    assert all(np.array_equal(made[0].frames, other.frames) for other in made[1:])
    recipe = made[0].metadata["kinema"]
    assert recipe["request"]["keep"] == "0:5" and recipe["request"]["video"] == str(tmp_path / "clip")
    assert len(recipe["inputs"]["video"]) == 64
