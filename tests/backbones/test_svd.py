"""Stable Video Diffusion: the picture is the condition, guidance grows by frame, and there are no words."""

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.families.unet import CASES, SIZE, svd
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.guidance.cfg import CFG, plain_guidance
from kinema.request import Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return svd(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


def run(backbone, techniques, *requests):
    """Latents of each step."""
    seen = []
    sample(backbone, requests, techniques, on_step=lambda step, x: seen.append(x))
    return seen


def pipeline(folder, pictures, seeds, **call):
    """Latents of diffusers' pipeline, (B, C, T, H, W)."""
    from diffusers import StableVideoDiffusionPipeline

    pipe = StableVideoDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    CASES["svd"].mend(pipe)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    found = pipe([Image.open(p) for p in pictures], **SIZE, generator=generators, output_type="latent", **call).frames
    return found.transpose(1, 2)


def test_alone_it_equals_the_pipeline_to_the_bit_at_another_frame_rate_too(folder, picture, backbone):
    request = Request(image=picture, seed=11, fps=12, **SIZE)
    *_, ours = run(backbone, [], request)
    settings = dict(fps=12, max_guidance_scale=1.0)
    assert torch.equal(ours.float(), pipeline(folder, [picture], [11], **settings))
    *_, other = run(backbone, [], request.changed(fps=7))
    assert (ours - other).abs().max() > 1e-3


def test_a_batch_has_a_seed_and_a_picture_for_each_sample(folder, picture, backbone, tmp_path):
    second = tmp_path / "second.png"
    Image.open(picture).rotate(180).save(second)
    requests = [Request(image=p, seed=s, **SIZE) for p, s in ((picture, 11), (second, 12))]
    *_, ours = run(backbone, plain_guidance(backbone.defaults), *requests)
    torch.testing.assert_close(ours.float(), pipeline(folder, [picture, second], [11, 12]), atol=1e-4, rtol=0)


def test_the_defaults_are_the_pipelines(backbone):
    d = backbone.defaults
    assert (d.height, d.width, d.num_frames, d.fps, d.num_inference_steps) == (576, 1024, 3, 7, 25)
    (growing,) = plain_guidance(d)
    assert (growing.name, growing.first, growing.last) == ("frame_cfg", 1.0, 3.0)
    (stronger,) = plain_guidance(d, 5.0)
    assert (stronger.first, stronger.last) == (1.0, 5.0)
    assert plain_guidance(d, 1.0) == []


def test_the_first_frame_follows_the_branch_with_the_picture(picture, backbone):
    request = Request(image=picture, seed=11, **SIZE)
    guided, alone = run(backbone, plain_guidance(backbone.defaults), request)[0], run(backbone, [], request)[0]
    torch.testing.assert_close(guided[:, :, 0], alone[:, :, 0], atol=1e-5, rtol=1e-5)
    assert (guided[:, :, -1] - alone[:, :, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("t", [0.03, 0.5, 0.99])
def test_its_time_is_a_quarter_of_log_sigma_at_any_level(picture, backbone, t):
    conditions = backbone.prepare([Request(image=picture, **SIZE)])
    x = torch.zeros(conditions.shape)
    told = backbone.network_time(t, x, conditions)
    torch.testing.assert_close(told, torch.tensor([t / (1 - t)]).log() / 4)
    torch.testing.assert_close(backbone.network_time(torch.tensor([t]), x, conditions), told)
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        backbone.velocity(x, torch.full((1, 4), t), conditions)


@pytest.mark.parametrize(
    "fields, techniques, says",
    [
        (dict(prompt="a red ball"), [], "reads no words; leave prompt and negative_prompt out"),
        (dict(negative_prompt="a red ball"), [], "reads no words"),
        (dict(image=None), [], "makes video from an image; give one"),
        (dict(last_image="last.png"), [], "takes a first image only"),
        (dict(), [CFG(scale=2.0)], "cfg leaves out 'text' in its branch 'uncond', which the svd family cannot do"),
        (dict(height=36), [], "height is 36; this model makes a multiple of 8"),
    ],
)
def test_refuses_in_one_sentence(picture, backbone, fields, techniques, says):
    with pytest.raises(KinemaError, match=says):
        run(backbone, techniques, Request(**{"image": picture, **SIZE, **fields}))


def test_a_request_without_words_goes_through_generate(folder, picture, backbone):
    import kinema

    sizes = dict(height=32, width=64, num_frames=4, num_inference_steps=1)
    video = kinema.generate(image=picture, model=backbone, seed=3, **sizes)
    assert video.metadata["kinema"]["request"]["prompt"] == ""
    assert video.frames.shape == (4, 32, 64, 3) and video.fps == 7
