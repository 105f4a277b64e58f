"""The latent cache: what is in it, how it grows and goes on."""

import copy

import pytest
import torch

from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.training.latents import (
    CacheSettings,
    Filler,
    LatentCache,
    encode_clips,
    fill_cache,
    open_cache,
)
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

SETTINGS = CacheSettings(clips=6, start=2, clips_per_shard=2, render_batch=2, first_seed=7)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoencoderKLKinema(widths=(8, 8, 8), z_dim=4, decoder_depths=(1, 1, 1)).eval()
    model.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[0.5, 1.0, 2.0, 4.0])
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def filled(autoencoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    open_cache(folder, SETTINGS, autoencoder[1])
    fill_cache(folder, SETTINGS, autoencoder[0], until=4)
    return folder


def test_latents_are_those_of_the_clips(filled, autoencoder):
    cache = LatentCache(filled)
    assert len(cache) == LatentCache.count(filled) == 4
    spec = sample_spec(7 + 3, "first")
    assert cache.scene(3) == spec
    frames = render_frames(simulate([spec])[0])
    video = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    z = autoencoder[0].encode(video).latent_dist.mode()
    mean, std = (torch.tensor(autoencoder[0].config[k]).view(1, 4, 1, 1, 1) for k in ("latents_mean", "latents_std"))
    torch.testing.assert_close(cache.latents([3], 7), (z - mean) / std, atol=5e-3, rtol=5e-3)


def test_shorter_clips_are_slices(filled, autoencoder):
    cache = LatentCache(filled)
    frames = render_frames(simulate([cache.scene(0)])[0])
    for length in (1, 3):
        short = encode_clips(autoencoder[0], frames[:, : 4 * length - 3])
        torch.testing.assert_close(cache.latents([0], length), short, atol=5e-3, rtol=5e-3)


def test_filling_goes_on_where_it_stopped_and_a_reader_sees_it(filled, autoencoder):
    cache = LatentCache(filled)
    before = [(p.name, p.stat().st_mtime_ns) for p in sorted(filled.glob("shard-*"))]
    (filled / ".writing-00002").write_bytes(b"half a shard")
    fill_cache(filled, SETTINGS, autoencoder[0])
    after = [(p.name, p.stat().st_mtime_ns) for p in sorted(filled.glob("shard-*"))]
    assert after[: len(before)] == before and len(after) == 3
    assert len(cache) == 4 and cache.refresh() == 6 and cache.latents([5], 1).shape == (1, 4, 1, 8, 8)


def test_a_shard_under_work_is_left_alone(autoencoder, tmp_path):
    import fcntl

    open_cache(tmp_path, SETTINGS, autoencoder[1])
    with (tmp_path / ".lock-00000").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fill_cache(tmp_path, SETTINGS, autoencoder[0], until=4)
    assert [p.name for p in tmp_path.glob("shard-*")] == ["shard-00001.safetensors"]


def test_another_encoder_is_refused_and_a_better_decoder_is_not(filled, autoencoder, tmp_path):
    other = copy.deepcopy(autoencoder[0])
    with torch.no_grad():
        next(other.decoder.parameters()).add_(1.0)
    other.save_pretrained(tmp_path / "decoder")
    open_cache(filled, SETTINGS, tmp_path / "decoder")
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1.0)
    other.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="another encoder"):
        open_cache(filled, SETTINGS, tmp_path / "encoder")


def test_a_failed_filler_is_noticed(tmp_path):
    filler = Filler(tmp_path, SETTINGS, tmp_path / "nothing")
    filler.process.wait(60)
    with pytest.raises(RuntimeError, match="in the background failed"):
        filler.check()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="multiple of clips_per_shard"):
        CacheSettings(clips=1001, clips_per_shard=500)
