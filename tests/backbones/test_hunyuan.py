"""HunyuanVideo's own: guidance that the network is told, the trace of the picture in the noise, positions, refusals."""

import json
import math
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from backbones.families import hunyuan
from kinema.backbones.hunyuan_attention import rotary_table
from kinema.backbones.load import load
from kinema.core.attention import Positions
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request

SIZE = dict(height=32, width=32, num_frames=5, num_inference_steps=2)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return hunyuan.build(tmp_path_factory.mktemp("t2v"))


@pytest.fixture(scope="module")
def replaced(tmp_path_factory):
    return hunyuan.build(tmp_path_factory.mktemp("i2v"), image=True, image_condition_type="token_replace")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


def latents(backbone, *techniques, seed=3, **fields):
    seen = []
    request = Request(prompt="a red ball", negative_prompt="a cube", seed=seed, **{**SIZE, **fields})
    sample(backbone, request, techniques, on_step=lambda step, x: seen.append(x))
    return seen[-1]


def calls_of(backbone):
    """What the network is told of guidance, one entry a call."""
    told = []
    backbone.transformer.register_forward_pre_hook(
        lambda module, args, given: told.append(given["guidance"].tolist()), with_kwargs=True
    )
    return told


def test_guidance_scale_is_told_to_the_network_and_costs_no_second_call(text):
    backbone = load(text, device="cpu", dtype="float32")
    told = calls_of(backbone)
    six = kinema.generate("a red ball", model=backbone, seed=1, **SIZE)
    assert told == [[6000.0]] * 2  # the default
    told.clear()
    three = kinema.generate("a red ball", model=backbone, seed=1, guidance_scale=3.0, **SIZE)
    assert told == [[3000.0]] * 2
    assert (six.frames != three.frames).any()
    told.clear()
    both = kinema.generate(
        "a red ball", model=backbone, seed=1, guidance_scale=3.0, techniques=[CFG(scale=2.0)], negative_prompt="a cube",
        **SIZE,
    )  # fmt: skip
    assert told == [[3000.0, 3000.0]] * 2  # both branches in one call
    assert (both.frames != three.frames).any()


def test_a_negative_prompt_that_nothing_reads_is_refused(text):
    backbone = load(text, device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="does not read it by itself; add the technique 'cfg'"):
        kinema.generate("a red ball", model=backbone, negative_prompt="a cube", **SIZE)


def test_a_batch_may_be_told_different_guidance(text):
    backbone = load(text, device="cpu", dtype="float32")
    requests = [Request(prompt="a red ball", seed=3, guidance_scale=scale, **SIZE) for scale in (2.0, 7.0)]
    seen = []
    sample(backbone, requests, on_step=lambda step, x: seen.append(x))
    for one, scale in zip(seen[-1], (2.0, 7.0), strict=True):
        torch.testing.assert_close(one[None], latents(backbone, guidance_scale=scale), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
def test_recipes_are_made_again(text, tmp_path, steps):
    video = kinema.generate(
        "a red ball", model=text, seed=1, guidance_scale=3.0, device="cpu", **{**SIZE, "num_inference_steps": steps}
    )
    path = tmp_path / "video.mp4"
    video.save(path)
    again, differences = kinema.replay(path)
    assert not differences and np.array_equal(again.frames, video.frames)


def test_a_model_that_is_not_told_is_guided_by_a_second_call(tmp_path, picture):
    folder = hunyuan.build(
        tmp_path, image=True, image_condition_type="latent_concat", in_channels=33, guidance_embeds=False
    )
    backbone = load(folder, device="cpu", dtype="float32")
    assert backbone.defaults.guidance_scale == 1 and not backbone.defaults.embedded_guidance
    plain = kinema.generate("a red ball", model=backbone, image=picture, seed=1, **SIZE)
    guided = kinema.generate("a red ball", model=backbone, image=picture, seed=1, guidance_scale=4.0, **SIZE)
    assert plain.frames.shape == (5, 32, 32, 3)  # as many as were asked for, although the model makes four more
    assert (plain.frames != guided.frames).any()


def test_pictures_and_texts_of_a_batch_stay_apart(replaced, picture, tmp_path):
    backbone = load(replaced, device="cpu", dtype="float32")
    other = tmp_path / "other.png"
    Image.effect_mandelbrot((64, 32), (-2, -1, 1, 1), 50).convert("RGB").save(other)
    requests = [Request(prompt="a red ball", seed=3, image=path, **SIZE) for path in (picture, other)]
    seen = []
    sample(backbone, requests, on_step=lambda step, x: seen.append(x))
    for one, path in zip(seen[-1], (picture, other), strict=True):
        torch.testing.assert_close(one[None], latents(backbone, image=path), atol=1e-4, rtol=1e-4)


def test_noise_starts_with_a_trace_of_the_picture(replaced, picture):
    backbone = load(replaced, device="cpu", dtype="float32")
    conditions = backbone.prepare([Request(prompt="a red ball", image=picture, **SIZE)])
    noise, solver = torch.zeros(conditions.shape), backbone.solver(conditions)
    torch.testing.assert_close(solver.begin(noise), 0.001 * conditions.known, atol=1e-6, rtol=1e-3)
    assert (conditions.known[:, :, :1] == conditions.known).all() and conditions.known.abs().max() > 0


@pytest.mark.parametrize("widths, theta", [((4, 4, 4), 256.0), ((16, 56, 56), 256.0)])
def test_rotary_table_in_closed_form(widths, theta):
    places = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.5, 7.0]])
    cos, sin = rotary_table(places, widths, theta)
    column = 0
    for axis, width in enumerate(widths):
        for pair in range(width // 2):  # angle = place * theta^(-2 i / width)
            angle = places[1, axis].item() * theta ** (-2 * pair / width)
            for twice in range(2):
                assert cos[1, column + twice].item() == pytest.approx(math.cos(angle), abs=1e-5)
                assert sin[1, column + twice].item() == pytest.approx(math.sin(angle), abs=1e-5)
            column += 2
    assert (cos[0] == 1).all() and (sin[0] == 0).all() and column == cos.shape[1]


@dataclass(frozen=True, kw_only=True)
class Moves(Technique):
    by: float

    def positions(self, step, site, positions):
        return Positions(positions.q + self.by, positions.k + self.by, positions.first)


def test_a_whole_period_of_all_positions_changes_nothing_and_a_part_does(text):
    backbone = load(text, device="cpu", dtype="float32")
    plain = latents(backbone)
    period = 2 * 16 * 2 * math.pi  # rotary frequencies are 1 and 1/16 a token, a token is two cells wide
    torch.testing.assert_close(latents(backbone, Moves(by=period)), plain, atol=2e-4, rtol=1e-3)
    assert (latents(backbone, Moves(by=3.0)) - plain).abs().max() > 1e-3  # text is not turned: it sees the difference


def edited(folder, path, copy, **values):
    """A copy of a model folder in which a JSON file says something else."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / path).read_text())
    (copy / path).write_text(json.dumps({**config, **values}))
    return copy


def test_what_does_not_belong_together_is_refused(text, replaced, tmp_path):
    for name in ("use_dynamic_shifting", "stochastic_sampling"):
        other = edited(text, "scheduler/scheduler_config.json", tmp_path / name, **{name: True})
        with pytest.raises(KinemaError, match="not a flow scheduler of 1000 timesteps with a fixed shift"):
            load(other, device="cpu")
    image = edited(text, "transformer/config.json", tmp_path / "b", image_condition_type="token_replace")
    with pytest.raises(KinemaError, match="HunyuanVideoPipeline needs other parts"):
        load(image, device="cpu")


def test_refusals(text, replaced, picture):
    backbone = load(text, device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="makes video from text alone"):
        backbone.prepare([Request(prompt="a red ball", image=picture, **SIZE)])
    with pytest.raises(KinemaError, match="height is 40; this model makes a multiple of 16"):
        backbone.prepare([Request(prompt="a red ball", **{**SIZE, "height": 40})])
    conditions = backbone.prepare([Request(prompt="a red ball", **SIZE)])
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        backbone.velocity(torch.zeros(conditions.shape), torch.ones(1, conditions.shape[2]), conditions)
    with pytest.raises(KinemaError, match="makes video from an image"):
        load(replaced, device="cpu").prepare([Request(prompt="a red ball", **SIZE)])


def test_computes_in_bfloat16(text, replaced, picture):
    for folder, image in ((text, None), (replaced, picture)):
        video = kinema.generate("a red ball", model=folder, image=image, seed=1, dtype="bfloat16", device="cpu", **SIZE)
        assert video.frames.std() > 0
