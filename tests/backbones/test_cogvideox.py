"""What is special to CogVideoX: its sizes, its rotary tables, its pictures and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from backbones.families import cogvideox as tiny_cogvideox
from kinema.backbones import rotary
from kinema.backbones.cogvideox_attention import _turned
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.positions import Positions
from kinema.request import Request

SIZE = tiny_cogvideox.SIZE


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """opened("cogvideox_5b") gives the tiny model of that kind, read anew each time."""
    made = {}

    def backbone(kind, dtype="float32"):
        if kind not in made:
            made[kind] = getattr(tiny_cogvideox, kind)(tmp_path_factory.mktemp(kind))
        return load(made[kind], device="cpu", dtype=dtype)

    return backbone


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def latents(backbone, *requests):
    seen = []
    sample(backbone, requests, on_step=lambda step, x: seen.append(x))
    return seen[-1]


@pytest.mark.parametrize("size", [(32, 64), (48, 32), (64, 96), (16, 16)])
@pytest.mark.parametrize("kind", ["cogvideox_5b", "cogvideox_15"])
def test_rotary_tables_of_places_are_the_models_own(kind, size, opened):
    backbone = opened(kind)
    shape = backbone.latent_shape(1, 17, *size)
    own, maker = backbone._make_rotary(*shape[-3:])
    for made, table in zip(maker(backbone.grid(shape)), own, strict=True):
        torch.testing.assert_close(made, table, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cogvideox_5b", "cogvideox_15"])
def test_among_video_tokens_only_relative_places_count(kind, opened):
    backbone = opened(kind)
    shape = backbone.latent_shape(1, 9, 48, 32)
    grid, (own, maker) = backbone.grid(shape), backbone._make_rotary(*shape[-3:])
    q, k = torch.randn(2, 1, 1, 5 + len(grid), 16, generator=torch.Generator().manual_seed(0))

    def scores(q_places, k_places):
        with rotary.made_by(maker):
            places = Positions(q_places, k_places, first=5)
            q_turned, k_turned = _turned(q, places, "q", grid, own), _turned(k, places, "k", grid, own)
        assert torch.equal(q_turned[:, :, :5], q[:, :, :5])  # words have no place
        return (q_turned @ k_turned.transpose(-1, -2))[0, 0, 5:, 5:]

    away = grid + torch.tensor([2.0, 3.0, -1.0])
    torch.testing.assert_close(scores(away, away), scores(grid, grid), atol=1e-4, rtol=1e-4)
    assert (scores(away, grid) - scores(grid, grid)).abs().max() > 1e-2


def test_places_of_an_added_table_do_not_move(opened):
    grid = opened("cogvideox_2b").grid((1, 16, 3, 4, 8))
    u = torch.zeros(1, 1, len(grid), 16)
    assert _turned(u, Positions(grid, grid), "q", grid, None) is u
    with pytest.raises(KinemaError, match="before attention; they cannot be moved"):
        _turned(u, Positions(grid + 1, grid), "q", grid, None)


def test_pairs_of_latent_frames_begin_with_padding_that_is_not_shown(opened):
    backbone = opened("cogvideox_15")
    request = Request(prompt="a ball", **{**SIZE, "num_frames": 17})
    conditions = backbone.prepare([request])
    assert conditions.shape == (1, 16, 6, 4, 8)  # 5 and one before them
    assert backbone.decode(torch.zeros(conditions.shape)).shape == (1, 17, 32, 64, 3)
    assert opened("cogvideox_5b").prepare([request]).shape[2] == 5


def test_a_batch_is_its_requests_one_by_one(opened, picture):
    backbone = opened("cogvideox_15_i2v")  # pictures and steps draw numbers too, each from its own seed
    requests = [Request(prompt="a red ball", image=picture, seed=seed, **SIZE) for seed in (1, 2)]
    both = latents(backbone, *requests)
    for one, request in zip(both, requests, strict=True):
        torch.testing.assert_close(one, latents(backbone, request)[0], atol=1e-5, rtol=1e-5)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_a_picture_is_scaled_as_the_autoencoder_says_and_drawn_with_the_noise(opened, picture):
    seen = {}
    for kind, scale in (("cogvideox_5b_i2v", 0.7), ("cogvideox_15_i2v", 1 / 0.7)):
        backbone = opened(kind)
        conditions = backbone.prepare([Request(prompt="a ball", image=picture, **SIZE)])
        posterior = conditions.extra["pictures"][0]
        mean = conditions.inputs["picture"]
        torch.testing.assert_close(mean[:, :1], scale * posterior.mode().transpose(1, 2))
        assert mean.shape[1] == conditions.shape[2] and not mean[:, 1:].any()
        backbone.noise(conditions, [torch.Generator().manual_seed(0)])
        drawn = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
        expected = scale * (posterior.mean + posterior.std * drawn).transpose(1, 2)
        torch.testing.assert_close(conditions.inputs["picture"][:, :1], expected)
        seen[kind] = conditions
    assert seen["cogvideox_15_i2v"].shape[2] == seen["cogvideox_5b_i2v"].shape[2] + 1


def test_the_clock_is_the_training_step_of_a_level(opened):
    backbone = opened("cogvideox_5b")
    assert backbone._timestep(1.0, 2).tolist() == [999, 999]
    levels = torch.tensor([backbone.clock.levels[k] for k in (332, 665)], dtype=torch.float64)
    assert backbone._timestep(levels, 2).tolist() == [332, 665]


def test_defaults_are_those_of_the_sizes_it_was_made_for(opened):
    old, new = opened("cogvideox_2b").defaults, opened("cogvideox_15").defaults
    assert (old.height, old.width, old.num_frames, old.fps) == (32, 64, 9, 8)
    assert (new.height, new.width, new.num_frames, new.fps) == (768, 1360, 9, 16)


REFUSED = {
    "frames": ("cogvideox_5b", dict(num_frames=13), "num_frames is 13; this model makes a multiple of 8 plus 1"),
    "frames in pairs": ("cogvideox_15", dict(num_frames=12), "use 9 or 17"),
    "rows": ("cogvideox_5b", dict(height=40), "height is 40; this model makes a multiple of 16"),
    "too many rows": ("cogvideox_15", dict(height=112), "height is 112; .* 16 to 96: use 96"),
    "no picture": ("cogvideox_5b_i2v", {}, "makes video from an image; give one"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses_before_the_first_step(what, opened):
    kind, change, says = REFUSED[what]
    with pytest.raises(KinemaError, match=says):
        opened(kind).prepare([Request(prompt="a ball", **{**SIZE, **change})])


def test_refuses_another_size_than_the_learned_one(opened, picture):
    with pytest.raises(KinemaError, match="use num_frames 9, height 32 and width 64"):
        opened("cogvideox_5b_i2v").prepare([Request(prompt="a ball", image=picture, **{**SIZE, "num_frames": 17})])


def test_refuses_a_level_for_each_frame(opened):
    backbone = opened("cogvideox_2b")
    conditions = backbone.prepare([Request(prompt="a ball", **SIZE)])
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        backbone.velocity(torch.zeros(conditions.shape), torch.full((1, 3), 0.5), conditions)


def test_bfloat16_stays_finite(opened, picture):
    found = latents(opened("cogvideox_5b_i2v", "bfloat16"), Request(prompt="a ball", image=picture, seed=1, **SIZE))
    assert found.dtype == torch.float64 and found.isfinite().all()


def _edit(folder, part, file, **changes):
    path = folder / part / file if part else folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "part, file, changes, says",
    [
        ("scheduler", "scheduler_config.json", {"prediction_type": "flow"}, "knows epsilon, sample and v_prediction"),
        ("scheduler", "scheduler_config.json", {"_class_name": "PNDMScheduler"}, "kinema knows CogVideoXDDIMScheduler"),
        ("", "model_index.json", {"_class_name": "CogVideoXImageToVideoPipeline"}, "does not suit a CogVideoXImage"),
    ],
)
def test_refuses_parts_that_do_not_belong(part, file, changes, says, tmp_path):
    folder = tiny_cogvideox.cogvideox_2b(tmp_path)
    _edit(folder, part, file, **changes)
    with pytest.raises(KinemaError, match=says):
        load(folder, device="cpu", dtype="float32")
