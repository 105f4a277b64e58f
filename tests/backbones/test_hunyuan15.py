"""HunyuanVideo 1.5's own: sizes from the picture, guidance from the guider, where a step ends, words in quotes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from backbones.families import hunyuan15
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.request import Request

SIZE = dict(num_frames=5, num_inference_steps=2)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return hunyuan15.build(tmp_path_factory.mktemp("t2v"))


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return hunyuan15.build(tmp_path_factory.mktemp("i2v"), image=True, scale=1.0, use_meanflow=True)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)).save(path)
    return path


def test_an_open_size_follows_the_picture_and_a_given_one_cuts_it(distilled, picture):
    backbone = load(distilled, device="cpu", dtype="float32")
    wide = backbone.prepare([Request(prompt="a red ball", image=picture, **SIZE)])
    assert wide.shape == (1, 4, 2, 2, 4)  # 90:40 in 48 * 48 pixels of 16 * 16
    asked = backbone.prepare([Request(prompt="a red ball", image=picture, height=48, width=32, **SIZE)])
    assert asked.shape == (1, 4, 2, 3, 2)
    mask = asked.inputs["picture"][:, -1]
    assert (mask[:, 0] == 1).all() and (mask[:, 1:] == 0).all()
    assert (asked.inputs["picture"][:, :-1, 1:] == 0).all() and asked.inputs["picture"][:, :-1, :1].any()
    video = kinema.generate("a red ball", model=backbone, image=picture, seed=1, **SIZE)
    assert video.frames.shape == (5, 32, 64, 3)
    assert video.metadata["kinema"]["request"]["height"] == 32


def test_the_network_is_told_where_its_step_ends(distilled, picture):
    backbone = load(distilled, device="cpu", dtype="float32")
    conditions = backbone.prepare([Request(prompt="a red ball", image=picture, num_frames=5, num_inference_steps=3)])
    times = backbone.solver(conditions).timesteps
    told = []
    backbone.transformer.register_forward_pre_hook(
        lambda module, args, given: told.append(given["timestep_r"].tolist()), with_kwargs=True
    )
    x = torch.zeros(conditions.shape)
    between = (times[0] + times[1]).item() / 2000
    for t in (*(times.double() / 1000).tolist(), between):
        with torch.no_grad():
            backbone.velocity(x, t, conditions)
    assert told == [[times[1].item()], [times[2].item()], [0.0], [times[1].item()]]
    assert backbone.defaults.num_inference_steps == 12


def edited(folder, path, copy, **values):
    """A copy of a model folder in which a JSON file says something else."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / path).read_text())
    (copy / path).write_text(json.dumps({**config, **values}))
    return copy


@pytest.mark.parametrize(
    "says, weight",
    [
        ({}, 6.0),
        (dict(use_original_formulation=True), 7.0),
        (dict(enabled=False), 1.0),
        (dict(guidance_scale=2.5), 2.5),
    ],
)
def test_guidance_comes_from_the_guider(text, tmp_path, says, weight):
    folder = edited(text, "guider/guider_config.json", tmp_path / "model", **says)
    assert load(folder, device="cpu").defaults.guidance_scale == weight


@pytest.mark.parametrize(
    "says", [dict(_class_name="AdaptiveProjectedGuidance"), dict(guidance_rescale=0.7), dict(start=0.1)]
)
def test_another_guider_is_refused(text, tmp_path, says):
    folder = edited(text, "guider/guider_config.json", tmp_path / "model", **says)
    with pytest.raises(KinemaError, match="is not plain ClassifierFreeGuidance"):
        load(folder, device="cpu")


def test_words_in_quotes_are_read_letter_by_letter(text):
    backbone = load(text, device="cpu", dtype="float32")
    plain, quoted = backbone.text_inputs(["a red ball", 'a red "ball"'])["glyphs_mask"].sum(dim=1).tolist()
    assert plain == 0 and quoted == len('Text "ball". ') + 1  # and the end


def test_computes_in_bfloat16(text, distilled, picture):
    for folder, image in ((text, None), (distilled, picture)):
        video = kinema.generate(
            "a red ball", model=folder, image=image, height=32, width=32, seed=1, dtype="bfloat16", device="cpu", **SIZE
        )
        assert video.frames.std() > 0
