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
from kinema.layers.pixels import resized
from kinema.layers.saved import packed, unpacked
from kinema.metrics.extractors.efficientnet import EMBEDDED, Convolution, Lite, LiteConfig
from kinema.metrics.extractors.extractor import load_extractor

# Every 32nd feature, by the package efficientnet_lite_pytorch 0.1.0 with the published weights before they are rounded:
# means over the map of its last block.
CAT = [1.752, -1.177, 3.083, -3.355, 1.682, 0.636, 2.809, -2.306, 1.601, -0.716]
COFFEE = [2.850, 0.368, -3.963, -0.336, -3.159, 0.226, 1.107, 0.720, 2.358, -3.951]


@pytest.mark.parametrize("picture, published", [(skimage.data.chelsea, CAT), (skimage.data.coffee, COFFEE)])
def test_features_are_those_of_the_published_network(picture, published):
    (found,) = load_extractor("efficientnet").frames(picture()[None])
    np.testing.assert_allclose(found[::32], published, atol=0.2)  # a tenth of their spread: 8 bits a weight


def test_frames_of_one_film_are_nearer_to_each_other_than_to_another_film():
    rabbit, phone = (load_extractor("efficientnet").frames(real_clips()[i].frames[::6]) for i in (0, 1))
    both = np.concatenate([rabbit, phone])
    assert both.shape == (10, 320) and both.dtype == np.float32 and (both < 0).mean() > 0.3
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


def test_rounded_weights_are_unpacked():
    stored = {
        "a.weight": torch.tensor([[[[2]]], [[[-127]]]], dtype=torch.int8),
        "a.scale": torch.tensor([0.5, 2.0]),
        "a.bias": torch.tensor([1.5, 0.25], dtype=torch.float16),
        "b.weight": torch.tensor([[[[3.0]]]], dtype=torch.float16),
    }
    found = unpacked(stored)
    assert found["a.weight"].tolist() == [[[[1.0]]], [[[-254.0]]]]
    assert found["a.bias"].tolist() == [1.5, 0.25] and found["b.weight"].tolist() == [[[[3.0]]]]
    assert set(found) == {"a.weight", "a.bias", "b.weight"}
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(8, 3, 2, 2), "a.bias": torch.randn(8), "norm.weight": torch.randn(8)}
    again = unpacked(packed(state))
    assert all((again[name] - value).abs().max() < 0.02 for name, value in state.items()) and set(again) == set(state)


def test_squeezing_keeps_a_plain_frame_plain():
    plain = resized(np.full((1, 9, 30, 3), 77, np.uint8), 16, antialias=True)
    torch.testing.assert_close(plain, torch.full((1, 3, 16, 16), 77.0))


def test_what_ships_is_small_and_near_the_original():
    card = json.loads((EMBEDDED / "card.json").read_text())
    assert (EMBEDDED / "model.safetensors").stat().st_size < 3 * 2**20
    assert card["license"] == "Apache-2.0" and card["closeness on 16 real frames"]["least cosine of features"] > 0.99
    assert card["largest difference of features from the published code, before rounding"] < 1e-4
    assert sum(w.numel() for w in unpacked(load_file(EMBEDDED / "model.safetensors")).values()) == sum(
        w.numel() for w in Lite(LiteConfig()).parameters()
    )


def test_a_folder_that_does_not_fit_is_one_sentence(tmp_path: Path):
    with pytest.raises(KinemaError, match="give a folder with config.json and model.safetensors"):
        load_extractor(f"efficientnet@{tmp_path}")
