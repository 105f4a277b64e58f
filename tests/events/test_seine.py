"""Given ends: told as clean where a model can be told, put in place where it cannot."""

import numpy as np
import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.events.seine import SEINE
from kinema.long.continuation import Continuation
from kinema.request import Request
from kinema.video import Video

SIZE = dict(height=32, width=32, num_inference_steps=2, seed=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips of 32x32 that move, as folders of pictures."""
    folder = tmp_path_factory.mktemp("clips")
    for name, level in (("a", 0), ("b", 100)):
        frames = (np.random.default_rng(level).integers(0, 100, (9, 32, 32, 3)) + level).astype(np.uint8)
        Video(frames).save(folder / name)
    return {name: str(folder / name) for name in "ab"}


def encoded(backbone, frames):
    return backbone.encode(torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1)


def test_a_model_with_a_time_for_each_frame_is_told(tiny_wan, clips):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    a, b = (Video.load(clips[name]).frames for name in "ab")
    part = SEINE(first=clips["a"], second=clips["b"], frames=5)
    request = Request(prompt="a ball", num_frames=25, **SIZE)
    with Run.open(backbone, request, [part]) as run:
        known, frames = run.conditions.known, run.conditions.known_frames[0, 0, :, 0, 0].tolist()
    assert frames == [True, True, False, False, False, True, True]
    torch.testing.assert_close(known[:, :, :2], encoded(backbone, a[-5:]))
    torch.testing.assert_close(known[:, :, 5:], encoded(backbone, b[[0, *range(8)]])[:, :, 1:])
    made, _ = denoise(backbone, request, [part])
    torch.testing.assert_close(made[:, :, [0, 1, 5, 6]], known[:, :, [0, 1, 5, 6]], rtol=0, atol=0)


def test_one_without_is_put_in_place_at_every_level(clips, tmp_path):
    backbone = load(cases()["animatediff"].build(tmp_path), device="cpu", dtype="float32")
    part, request = SEINE(first=clips["a"], second=clips["b"]), Request(prompt="a ball", num_frames=5, **SIZE)
    with Run.open(backbone, request, [part]) as run:
        known, places, noise = run.state[part]
        x = part.before_step(run.schedule[1], torch.zeros_like(known))
        t = run.schedule[1].t
        torch.testing.assert_close(x[:, :, 0], (1 - t) * known[:, :, 0] + t * noise[:, :, 0])
        assert places.flatten().tolist() == [True, False, False, False, True] and not x[:, :, 1:4].any()
    made, _ = denoise(backbone, request, [part])
    torch.testing.assert_close(made[:, :, [0, 4]].float(), known[:, :, [0, 4]], rtol=0, atol=1e-6)


def test_what_leaves_nothing_to_be_made_is_refused(tiny_wan, clips):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    for frames, words in [(-1, "frames of seine is -1; use 0 or more"), (5, "seine gives all frames of the video")]:
        with pytest.raises(KinemaError, match=words):
            part = SEINE(first=clips["a"], second=clips["b"], frames=frames)
            denoise(backbone, Request(prompt="a ball", num_frames=13, **SIZE), [part])


def test_one_without_clips_or_with_too_short_ones_is_refused(tiny_wan, clips):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    for part, words in [
        (SEINE(), "seine has no clips; give first, second or both, as in seine:first=a.mp4"),
        (SEINE(first=clips["a"], frames=10), "first of seine has 9 frames, and frames of seine is 10; use a longer"),
        (SEINE(second=clips["b"], frames=10), "second of seine has 9 frames, and frames of seine is 10; use a longer"),
    ]:
        with pytest.raises(KinemaError, match=words):
            denoise(backbone, Request(prompt="a ball", num_frames=49, **SIZE), [part])


def test_ends_of_a_video_in_several_passes_are_refused_with_both_names(tiny_folder, clips):
    backbone = load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")
    backbone.folder.card["given"] = {"first": 1, "first_k": 1}
    part = SEINE(first=clips["a"])
    for asked, plan in [
        (dict(num_frames=17), Continuation(frames=9)),
        (dict(video=clips["b"]), Continuation(frames=9, seconds=0.5)),
    ]:
        with pytest.raises(KinemaError) as error:
            Rollout(backbone, Request(prompt="a ball", fps=8, **asked, **SIZE), [part, plan])
        assert str(error.value) == (
            "seine gives the ends of a video made in one pass, and continuation makes this one in several; they cannot "
            "be used together"
        )
