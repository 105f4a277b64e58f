"""The image network that ships with kinema: its parts on known values, and what it says of real pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from clips import real_clips
from safetensors.torch import load_file

from kinema.core.errors import KinemaError
from kinema.metrics.extractors.efficientnet import EMBEDDED, Convolution, Lite, LiteConfig, restored
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.extractors.pixels import log_mean, resized

CAT, ESPRESSO, TIE = {281, 282, 285}, {967}, {457, 834, 906}  # tabby, tiger, Egyptian; bow tie, suit, Windsor tie


def likeliest(frames: np.ndarray) -> int:
    return int(load_extractor("efficientnet").logits(frames, 8.0).argmax())


@pytest.mark.parametrize(
    "picture, classes", [(skimage.data.chelsea, CAT), (skimage.data.coffee, ESPRESSO), (None, TIE)]
)
def test_it_names_what_is_in_real_pictures(picture, classes):
    frames = real_clips()[1].frames if picture is None else picture()[None]  # carphone: a man in a suit
    assert likeliest(frames) in classes


def test_frames_of_one_film_are_nearer_to_each_other_than_to_another_film():
    rabbit, phone = (load_extractor("efficientnet").frames(real_clips()[i].frames[::6]) for i in (0, 1))
    both = np.concatenate([rabbit, phone])
    assert both.shape == (10, 1280) and both.dtype == np.float32 and both.min() >= 0 and both.max() <= 6
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    near = unit @ unit.T
    assert near[:5, :5].min() > near[:5, 5:].max() and near[5:, 5:].min() > near[:5, 5:].max()


def test_a_frame_has_the_same_features_in_any_company():
    network, frames = load_extractor("efficientnet"), real_clips()[0].frames[:6]  # two chunks
    together = network.frames(frames)
    np.testing.assert_allclose(together[5:], network.frames(frames[5:]), atol=1e-4)


def test_odd_padding_goes_to_the_right_and_the_bottom():
    convolution = Convolution(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    with torch.no_grad():  # windows begin at 0 and 2: the second one sees a column and a row of zeros
        assert convolution(torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]
        assert convolution(torch.ones(1, 1, 3, 3)).tolist() == [[[[4, 4], [4, 4]]]]


def test_rounded_weights_are_restored():
    stored = {
        "a.weight": torch.tensor([[[[2]]], [[[-127]]]], dtype=torch.int8),
        "a.scale": torch.tensor([[0.5], [2.0]]),
        "a.bias": torch.tensor([1.5, 0.25], dtype=torch.float16),
        "b.weight": torch.tensor([[0x18, 0xF0]], dtype=torch.uint8),  # 8 1 | 0 15, each larger by 8
        "b.scale": torch.tensor([[1.0, 10.0]]),
        "c.weight": torch.tensor([[3.0]]),
    }
    found = restored(stored)
    assert found["a.weight"].tolist() == [[[[1.0]]], [[[-254.0]]]]
    assert found["b.weight"].tolist() == [[0.0, -7.0, -80.0, 70.0]]
    assert found["a.bias"].tolist() == [1.5, 0.25] and found["c.weight"].tolist() == [[3.0]]
    assert set(found) == {"a.weight", "a.bias", "b.weight", "c.weight"}


def test_the_classes_of_a_clip_are_the_mean_probability_of_its_frames():
    odds = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    torch.testing.assert_close(log_mean(odds).exp(), odds.softmax(1).mean(0))


def test_squeezing_keeps_a_plain_frame_plain():
    plain = resized(np.full((1, 9, 30, 3), 77, np.uint8), 16, antialias=True)
    torch.testing.assert_close(plain, torch.full((1, 3, 16, 16), 77.0))


def test_what_ships_is_small_and_near_the_original():
    card = json.loads((EMBEDDED / "card.json").read_text())
    assert (EMBEDDED / "model.safetensors").stat().st_size < 4 * 2**20
    assert card["license"] == "Apache-2.0" and card["closeness on 16 real frames"]["least cosine of features"] > 0.99
    assert sum(w.numel() for w in restored(load_file(EMBEDDED / "model.safetensors")).values()) == sum(
        w.numel() for w in Lite(LiteConfig()).parameters()
    )


def test_a_folder_that_does_not_fit_is_one_sentence(tmp_path: Path):
    with pytest.raises(KinemaError, match="give a folder with config.json and model.safetensors"):
        load_extractor(f"efficientnet@{tmp_path}")
