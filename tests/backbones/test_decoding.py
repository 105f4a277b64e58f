"""Decoding in pieces: the same frames as the whole, and memory that does not grow with the clip."""

import numpy as np
import pytest
import torch

from backbones.families import cases
from kinema.backbones import decoding
from kinema.backbones.load import load
from kinema.backbones.plan import Rehearsal

CASES = cases()
EXACT = {  # largest difference to the autoencoder's own decode; None where it goes in one piece
    "wan 2.1 t2v": 0.0,
    "wan 2.2 ti2v": 0.0,
    "cogvideox 2b": 0.0,
    "hunyuan t2v": 0.0,
    "hunyuan i2v, latents beside": 0.0,
    "animatediff": 1e-5,
    "hunyuan 1.5 t2v": None,
    "ltx 0.9.0 t2v": None,
    "mochi": None,
    "svd": None,
}
# With vae_tiling: largest and mean difference to the whole, of values in -1..1, on random decoders.
TILED = {
    "ltx 0.9.5 t2v": (0.4, 0.01),
    "mochi": (0.2, 0.01),
    "hunyuan 1.5 t2v": (0.6, 0.03),
    "svd": (0.2, 0.015),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """opened(name, vae_tiling=...) loads a tiny model."""
    folders = {}

    def open_model(name, **more):
        if name not in folders:
            folders[name] = CASES[name].build(tmp_path_factory.mktemp("model"))
        return load(folders[name], "cpu", "float32", **more)

    return open_model


def latents(backbone, frames, batch=1, side=4):
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, backbone.channels, frames, side, side, generator=generator)


def whole(backbone, x, monkeypatch):
    """What the autoencoder's own decode gives."""

    def decode(vae, z, **told):
        if type(vae).__name__ not in ("AutoencoderKL", "AutoencoderKLTemporalDecoder"):
            yield vae.decode(z, **told).sample
            return
        words = {} if type(vae).__name__ == "AutoencoderKL" else {"num_frames": z.shape[2]}
        yield vae.decode(z.transpose(1, 2).flatten(0, 1), **words).sample.unflatten(0, (len(z), -1)).transpose(1, 2)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(decoding, "WAYS", dict.fromkeys(decoding.WAYS, decode))
        return torch.cat(list(backbone.pixels(x)), dim=2)


@pytest.mark.parametrize("name", EXACT)
@torch.no_grad()
def test_pieces_are_the_whole(name, opened, monkeypatch):
    backbone = opened(name)
    for frames in (2, 3, 18):
        x = latents(backbone, frames, side=2)
        pieces = list(backbone.pixels(x))
        found = torch.cat(pieces, dim=2)
        torch.testing.assert_close(found, whole(backbone, x, monkeypatch), atol=EXACT[name] or 0.0, rtol=0)
        if frames == 18:
            assert (len(pieces) == 1) == (EXACT[name] is None)
            shown = torch.cat(list(backbone.decode_pieces(x)), dim=1)
            assert torch.equal(shown, backbone.decode(x)) and shown.dtype == torch.uint8
            assert torch.equal(
                shown[0, 5], ((found[0, :, 5] / 2 + 0.5).clamp(0, 1) * 255).round().byte().movedim(0, -1)
            )


@torch.no_grad()
def test_pieces_of_kinemas_own_autoencoder(tiny_folder, monkeypatch):
    """Three blocks deep at every level; in float64, because what a frame sees of the farthest one is little."""
    from kinema.models.autoencoder import AutoencoderKLKinema

    torch.manual_seed(0)
    backbone = load(tiny_folder("kinema_mini"), "cpu", "float32")
    backbone.vae = AutoencoderKLKinema(8, (8, 8, 8), (1, 1, 1), (3, 3, 3)).eval().double()
    for parameter in backbone.vae.parameters():
        parameter.normal_(std=0.3)
    for last in (backbone.vae.decoder.conv_out, *backbone.vae.decoder.shortcut.children()):
        last.weight.mul_(0.02)  # values from -1 to 1: what is clamped hides what it was made of
    x = latents(backbone, 40, side=1)
    pieces = list(backbone.pixels(x))
    assert len(pieces) == 3 and torch.cat(pieces, dim=2).abs().mean() < 0.5
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole(backbone, x, monkeypatch), atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", TILED)
@torch.no_grad()
def test_seams_of_tiles_in_time_are_bounded(name, opened, monkeypatch):
    backbone = opened(name, vae_tiling=True)
    x = latents(backbone, 23, side=2)
    pieces = list(backbone.pixels(x))
    expected = whole(backbone, x, monkeypatch)
    assert len(pieces) > 2
    off = (torch.cat(pieces, dim=2) - expected).abs()
    largest, mean = TILED[name]
    print(f"{name}: largest {off.max():.3f}, mean {off.mean():.4f}, of a deviation of {expected.std():.3f}")
    assert 0 < off.max() < largest and off.mean() < mean
    assert off[:, :, : backbone.frames_per_latent].max() < 0.1  # the beginning has all that it looks at


STRIDES = ("tile_sample_stride_height", "tile_sample_stride_width")


@torch.no_grad()
def test_seams_of_tiles_of_the_picture_are_bounded(opened):
    plain, tiled = opened("wan 2.1 t2v"), opened("wan 2.1 t2v", vae_tiling=True)
    tiled.vae.enable_tiling(tile_sample_min_height=64, tile_sample_min_width=64, **dict.fromkeys(STRIDES, 48))
    x = latents(plain, 2, batch=2, side=12)
    off = (torch.cat(list(tiled.pixels(x)), dim=2) - torch.cat(list(plain.pixels(x)), dim=2)).abs()
    assert 0 < off.max() < 0.8 and off.mean() < 0.05


@pytest.mark.parametrize(
    "name, tiling",
    [*((name, False) for name, off in EXACT.items() if off is not None), *((name, True) for name in TILED)],
)
@torch.no_grad()
def test_memory_does_not_grow_with_the_clip(name, tiling, opened):
    backbone = opened(name, vae_tiling=tiling)
    most = []
    for frames in (33, 49) if name == "animatediff" else (26, 44) if tiling else (9, 17):
        x = latents(backbone, frames, side=2)
        with Rehearsal() as counted:
            for piece in backbone.decode_pieces(x):
                del piece
        most.append(counted.most - 2 * x.nbytes)  # the latents themselves, as they are and scaled
    assert most[1] <= 1.02 * most[0]


@torch.no_grad()
def test_a_batch_is_its_samples(opened):
    for name in ("ltx 0.9.5 t2v", "hunyuan 1.5 t2v", "svd", "wan 2.1 t2v"):
        backbone = opened(name)
        x = latents(backbone, 3, batch=2)
        both = torch.cat(list(backbone.pixels(x)), dim=2)
        for i in range(2):
            alone = torch.cat(list(backbone.pixels(x[i : i + 1])), dim=2)
            torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_frames_are_cut_off_over_pieces():
    pieces = [torch.full((1, 3, n, 1, 1), float(n)) for n in (1, 4, 4)]
    assert [p.shape[2] for p in decoding.without(4, iter(pieces))] == [1, 4]
    assert [p.shape[2] for p in decoding.without(0, iter(pieces))] == [1, 4, 4]


def test_closing_gives_the_autoencoder_back(opened):
    backbone = opened("wan 2.1 t2v")
    pieces = backbone.decode_pieces(latents(backbone, 3))
    first = next(pieces)
    pieces.close()
    assert np.array_equal(first, backbone.decode(latents(backbone, 3))[:, :1])
