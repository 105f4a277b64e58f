"""The causal autoencoder: shapes, causality, the linear start, diffusers' layout and calls."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import ModelMixin
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from kinema.metrics.control.psnr import decibels
from kinema.models.autoencoder import (
    AutoencoderKLKinema,
    Block,
    cells,
    depth_to_space,
    space_to_depth,
)
from kinema.training.autoencoder import start_from_principal_components

TINY = dict(z_dim=6, widths=(8, 12, 16), decoder_depths=(1, 1, 1))


def tiny(encoder_depths: tuple[int, int, int] | None = (1, 1, 1), seed: int = 0) -> AutoencoderKLKinema:
    """A small network with all weights random: as it is made, most of it is zero and would hide faults."""
    vae = AutoencoderKLKinema(**TINY, encoder_depths=encoder_depths).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in vae.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.1))
    return vae


def clip(frames: int = 9, height: int = 32, width: int = 48, batch: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module", params=[(1, 1, 1), None], ids=["residual", "linear"])
def vae(request) -> AutoencoderKLKinema:
    return tiny(request.param)


@pytest.mark.parametrize("frames", range(1, 26, 4))
@torch.no_grad()
def test_shapes_of_every_length(vae, frames):
    posterior = vae.encode(clip(frames, batch=2)).latent_dist
    assert isinstance(posterior, DiagonalGaussianDistribution)
    assert posterior.mode().shape == posterior.sample().shape == (2, 6, 1 + (frames - 1) // 4, 2, 3)
    assert vae.decode(posterior.mode()).sample.shape == (2, 3, frames, 32, 48)


@torch.no_grad()
def test_calls_of_diffusers(vae):
    x = clip()
    z = vae.encode(x, return_dict=False)[0].mode()
    assert torch.equal(z, vae.encode(x).latent_dist.mode())
    assert torch.equal(vae.decode(z, return_dict=False)[0], vae.decode(z).sample)
    assert torch.equal(vae(x).sample, vae.decode(z).sample)
    assert vae.decode(100 * z).sample.abs().max() <= 1.0
    assert isinstance(vae, ModelMixin) and len(vae.config.latents_mean) == len(vae.config.latents_std) == 6
    assert (vae.config.scale_factor_spatial, vae.config.scale_factor_temporal) == (16, 4)


@pytest.mark.parametrize("frame", [0, 1, 4, 5, 8])
@torch.no_grad()
def test_a_frame_changes_its_own_group_and_later_ones_only(vae, frame):
    x = clip()
    changed = x.clone()
    changed[:, :, frame] = clip(seed=2)[:, :, frame]
    group = (frame + 3) // 4
    a, b = vae.encode(x).latent_dist.mode(), vae.encode(changed).latent_dist.mode()
    assert torch.equal(a[:, :, :group], b[:, :, :group])
    assert not torch.allclose(a[:, :, group], b[:, :, group])


@pytest.mark.parametrize("group", [0, 1, 2])
@torch.no_grad()
def test_a_latent_frame_changes_its_own_frames_and_later_ones_only(vae, group):
    z = torch.randn(1, 6, 3, 2, 3, generator=torch.Generator().manual_seed(3)) * 0.1
    changed = z.clone()
    changed[:, :, group] += 0.1
    a, b = vae.decode(z).sample, vae.decode(changed).sample
    first = max(0, 4 * group - 3)
    assert torch.equal(a[:, :, :first], b[:, :, :first])
    for frame in range(first, max(1, 4 * group + 1)):
        assert not torch.allclose(a[:, :, frame], b[:, :, frame])


@torch.no_grad()
def test_a_clip_cut_short_has_the_same_start(vae):
    x = clip(13)
    z = vae.encode(x).latent_dist.mode()
    torch.testing.assert_close(vae.encode(x[:, :, :5]).latent_dist.mode(), z[:, :, :2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vae.decode(z[:, :, :2]).sample, vae.decode(z).sample[:, :, :5], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clips_of_a_batch_do_not_mix(vae):
    x = clip(5, batch=3)
    alone = torch.cat([vae(one).sample for one in x.split(1)])
    torch.testing.assert_close(vae(x).sample, alone, rtol=1e-4, atol=1e-5)


def test_saves_and_loads_bit_for_bit(vae, tmp_path):
    vae.register_to_config(latents_mean=[0.1 * i for i in range(6)], latents_std=[1.0 + i for i in range(6)])
    vae.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "AutoencoderKLKinema"
    loaded = AutoencoderKLKinema.from_pretrained(tmp_path)
    assert loaded.config.latents_mean == vae.config.latents_mean
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    for key, value in vae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])


@torch.no_grad()
def test_bfloat16_is_near(vae):
    x = clip(5)
    half = tiny(None if vae.config.encoder_depths is None else (1, 1, 1)).to(torch.bfloat16)
    y = half(x.bfloat16()).sample
    assert y.dtype == torch.bfloat16 and decibels(y, vae(x).sample, span=2).item() > 25


@pytest.mark.parametrize(
    "shape, says",
    [
        ((1, 3, 4, 32, 32), "has 4 frames; use 1 \\+ 4k"),
        ((1, 3, 5, 40, 32), "40x32 pixels; use multiples of 16"),
        ((1, 4, 5, 32, 32), "use \\(B, 3, T, H, W\\)"),
        ((3, 5, 32, 32), "use \\(B, 3, T, H, W\\)"),
    ],
)
def test_refuses_frames(vae, shape, says):
    with pytest.raises(ValueError, match=says):
        vae.encode(torch.zeros(shape))


def test_refuses_latents_and_configs(vae):
    with pytest.raises(ValueError, match="use \\(B, 6, T, H, W\\)"):
        vae.decode(torch.zeros(1, 32, 2, 2, 2))
    with pytest.raises(ValueError, match="latents_std has 2 numbers"):
        AutoencoderKLKinema(**TINY, latents_std=(1.0, 1.0))
    with pytest.raises(ValueError, match="this network has 16 and 4"):
        AutoencoderKLKinema(**TINY, scale_factor_spatial=8)


def test_folding_undoes_itself():
    x = torch.arange(2 * 3 * 8 * 12 * 5.0).reshape(2, 3, 8, 12, 5)
    for n in (2, 4):
        folded = space_to_depth(x, n)
        assert folded.shape == (2, 3, 8 // n, 12 // n, 5 * n * n)
        assert torch.equal(depth_to_space(folded, n), x)
    assert torch.equal(space_to_depth(x, 2)[0, 0, 0, 1], x[0, 0, :2, 2:4].flatten())  # row, column, channel


def test_new_blocks_change_nothing():
    x = torch.randn(1, 3, 4, 4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Block(8)(x), x)


@torch.no_grad()
def test_principal_components_code_what_has_few_of_them():
    """Cells that are mixtures of z_dim patterns come back nearly exactly; the encoder's bfloat16 is what is left."""
    g = torch.Generator().manual_seed(5)
    vae = AutoencoderKLKinema(**{**TINY, "z_dim": 4}).eval()
    x = torch.zeros(8, 3, 9, 64, 64)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    patterns = [rows * 0 + 1, (rows - 7.5) / 8, (columns - 7.5) / 8, torch.cos(rows * torch.pi / 16 * 2)]
    weights = torch.randn(8, 4, 4, 4, generator=g).repeat_interleave(16, 2).repeat_interleave(16, 3) * 0.1
    tiled = torch.stack(patterns).repeat(1, 4, 4)
    x[:, 0] = (weights * tiled).sum(1)[:, None]  # (clip, frame, row, column): still pictures
    start_from_principal_components(vae, x)
    assert decibels(vae(x).sample, x, span=2).min() > 45
    # A still picture has about the same latents in all latent frames.
    z = vae.encode(x).latent_dist.mode()
    torch.testing.assert_close(z[:, :, 0], z[:, :, 1], rtol=0.05, atol=0.05)


def test_cells_hold_each_pixel_once():
    x = clip(9)
    first, groups = cells(x)
    assert first.shape == (1, 1, 2, 3, 768) and groups.shape == (1, 2, 2, 3, 3072)
    assert torch.equal(torch.cat((first.flatten(), groups.flatten())).sort().values, x.flatten().sort().values)
    assert set(groups[0, 1, 1, 2].tolist()) == set(x[0, :, 5:9, 16:, 32:].flatten().tolist())
