"""A sketch in the place of the first steps."""

import numpy as np
import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.guidance.cfg import CFG
from kinema.layers.clips import clip_latents
from kinema.quality.video_msg import VideoMSG
from kinema.recipe import hash_inputs
from kinema.request import Part, Request
from kinema.video import Video

SIZE = dict(num_frames=5, height=32, width=32, num_inference_steps=8, seed=1)


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def sketch(tmp_path_factory):
    """Nine frames of another size."""
    frames = np.random.default_rng(0).integers(0, 255, (9, 40, 48, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("sketch") / "frames"
    Video(frames).save(path)
    return str(path)


def test_the_model_begins_at_the_sketch_with_noise(backbone, sketch):
    """x = (1 - s) z + s noise at the first step that is the model's, with a solver that looks back two steps."""
    seen, asked = [], []
    part = VideoMSG(sketch=sketch, level=0.7)
    with Run.open(backbone, Request(prompt="a ball", **SIZE), [part]) as run:
        z, noise = run.state[part], run.noise()
        levels = [step.t for step in run.schedule]
    predict = backbone.predict
    backbone.predict = lambda x, t, *args: (seen.append(x), asked.append(t), predict(x, t, *args))[2]
    try:
        denoise(backbone, Request(prompt="a ball", **SIZE), [part])
    finally:
        del backbone.predict
    first = next(level for level in levels if level <= 0.7)
    assert len(asked) == sum(level <= 0.7 for level in levels) < len(levels), "no call above the level"
    torch.testing.assert_close(seen[0], (1 - first) * z + first * noise, rtol=0, atol=2e-5)


def test_the_sketch_is_resampled_and_noted_in_the_recipe(backbone, sketch):
    with Run.open(backbone, Request(prompt="a ball", **SIZE), []) as run:
        frames = Video.load(sketch).frames[[0, 2, 4, 6, 8]]
        resized = clip_latents(run, sketch, "sketch")
        assert resized.shape == run.conditions.shape
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    video = torch.nn.functional.interpolate(video, (5, 32, 32))  # not smoothed: another picture of the same size
    assert (backbone.encode(video) - resized).abs().max() > 1e-3
    part = Part(name="video_msg", options={"sketch": sketch})
    assert list(hash_inputs(Request(prompt="a", techniques=[part], **SIZE))) == ["sketch of video_msg"]


def test_what_is_no_sketch_is_refused(backbone, sketch):
    for part, words in [
        (VideoMSG(), "sketch of video_msg is empty"),
        (VideoMSG(sketch="/nowhere.mp4"), "nowhere.mp4"),
        (VideoMSG(sketch=sketch, level=0.0), "level of video_msg is 0.0"),
    ]:
        with pytest.raises(KinemaError, match=words):
            denoise(backbone, Request(prompt="a ball", **SIZE), [part, CFG()])
