"""LTX-Video beyond the contract of the families: decoders that draw noise, 0.9.7's own clockwork, a time per frame."""

import pytest
import torch

from backbones import test_families as contract
from backbones.families import ltx as tiny_ltx
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.request import Request

SIZE = tiny_ltx.SIZE


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(version, pipeline="LTXPipeline"):
        if (version, pipeline) not in made:
            made[version, pipeline] = tiny_ltx.build(tmp_path_factory.mktemp("ltx"), version, pipeline)
        return made[version, pipeline]

    return folder


def open_tiny(folder):
    return load(folder, device="cpu", dtype="float32")


def test_places_in_time(folders):
    places = torch.tensor([[0.0, 0, 0], [1, 2, 0], [2, 0, 3], [2.5, 0, 0]])
    early, late = (open_tiny(folders("0.9.5", p)) for p in ("LTXPipeline", tiny_ltx.CONDITION))
    expected = torch.tensor([[0.0, 8, 16, 20], [0, 64, 0, 0], [0, 0, 96, 0]])
    expected[0] /= 25
    torch.testing.assert_close(early.coordinates(places, 25.0), expected[None])
    expected[0] = torch.tensor([0.0, 1, 9, 13]) / 25  # the first latent frame holds one frame, the others eight
    torch.testing.assert_close(late.coordinates(places, 25.0), expected[None])


def test_layers_that_add_noise_draw_it_from_the_seed(folders):
    """0.9.1: diffusers draws it from the global generator, which here is made to go on where the sample's own is."""
    import diffusers

    folder = folders("0.9.1")
    pipeline = diffusers.LTXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generator, decode = torch.Generator().manual_seed(contract.SEED), pipeline.vae.decode

    def continued(*args, **named):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            return decode(*args, **named)

    pipeline.vae.decode = continued
    theirs = pipeline(
        contract.PROMPT, **SIZE, **tiny_ltx.DECODER, guidance_scale=1.0, generator=generator, output_type="pt"
    ).frames[0]
    backbone = open_tiny(folder)
    request = Request(prompt=contract.PROMPT, seed=contract.SEED, **SIZE)
    before = torch.get_rng_state()
    frames = sample(backbone, request)[0]
    assert torch.equal(torch.get_rng_state(), before)
    expected = (theirs.permute(0, 2, 3, 1) * 255).round()
    assert (frames - expected).abs().max() <= 1 and (frames != expected).float().mean() < 1e-3
    other = sample(backbone, request.changed(seed=contract.SEED + 1))[0]
    assert (other.float() - frames.float()).abs().max() > 1


@pytest.mark.parametrize("version", ["0.9.0", "0.9.1"])
def test_a_batch_is_its_requests_one_by_one(folders, pictures, version):
    backbone = open_tiny(folders(version))
    requests = [
        Request(prompt=prompt, seed=seed, image=pictures[0], **SIZE)
        for prompt, seed in (("a red ball", 1), ("the blue cube jumps left on a ring", 2))
    ]
    together = sample(backbone, requests)
    for r, video in zip(requests, together, strict=True):
        alone = sample(backbone, r)[0]
        assert (alone.int() - video.int()).abs().max() <= 1


def test_every_frame_has_its_time(folders, pictures):
    backbone = open_tiny(folders("0.9.0"))
    conditions = backbone.prepare([Request(prompt="a red ball", seed=1, **SIZE)])
    x = torch.randn(conditions.shape, generator=torch.Generator().manual_seed(0))
    frames = torch.full((1, x.shape[2]), 0.6)
    with torch.no_grad():
        plain = backbone.velocity(x, 0.6, conditions)
        torch.testing.assert_close(backbone.velocity(x, frames, conditions), plain, atol=1e-6, rtol=1e-5)
        frames[:, 0] = 0
        mixed = backbone.velocity(x, frames, conditions)
        assert (mixed - plain).abs().max() > 1e-3
        given = backbone.prepare([Request(prompt="a red ball", seed=1, image=pictures[0], **SIZE)])
        assert torch.equal(backbone.velocity(x, 0.6, given), mixed)


def test_the_given_frame_stays(folders, pictures):
    backbone = open_tiny(folders("0.9.0"))
    seen = []
    request = Request(prompt="a red ball", seed=1, image=pictures[0], **SIZE)
    sample(backbone, request, on_step=lambda step, x: seen.append(x[:, :, 0]))
    assert all(torch.equal(x, seen[0]) for x in seen)
    posterior = backbone.prepare([request])
    expected = posterior.known[:, :, 0]  # the mean, around which the given frame is drawn
    assert 0 < (seen[0] - expected).abs().max() < 10


def test_decoding_without_a_run_adds_no_noise(folders):
    backbone = open_tiny(folders("0.9.5"))
    conditions = backbone.prepare([Request(prompt="a red ball", seed=1, **SIZE)])
    x = torch.randn(conditions.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backbone.decode(x), backbone.decode(x, conditions))
    backbone.noise(conditions, [torch.Generator().manual_seed(1)])
    assert not torch.equal(backbone.decode(x), backbone.decode(x, conditions))


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(height=48), "height is 48; this model makes a multiple of 32"),
        (dict(num_frames=10), "num_frames is 10; this model makes a multiple of 8 plus 1"),
    ],
)
def test_refuses_sizes(folders, fields, says):
    with pytest.raises(KinemaError, match=says):
        open_tiny(folders("0.9.0")).prepare([Request(prompt="a red ball", **{**SIZE, **fields})])


def test_refuses_a_second_picture(folders, pictures):
    with pytest.raises(KinemaError, match="takes a first image only"):
        open_tiny(folders("0.9.0")).prepare(
            [Request(prompt="a red ball", image=pictures[0], last_image=pictures[1], **SIZE)]
        )


@pytest.mark.parametrize(
    "part, change, says",
    [
        ("scheduler/scheduler_config.json", dict(stochastic_sampling=True), "is not a flow scheduler"),
        ("scheduler/scheduler_config.json", dict(num_train_timesteps=500), "is not a flow scheduler"),
        ("scheduler/scheduler_config.json", dict(_class_name="DDIMScheduler"), "scheduler of model .* is a DDIM"),
        ("transformer/config.json", dict(in_channels=8), "transformer of model"),
    ],
)
def test_refuses_parts_of_another_kind(tmp_path, part, change, says):
    import json

    folder = tiny_ltx.build(tmp_path / "ltx", "0.9.0")
    path = folder / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(KinemaError, match=says):
        open_tiny(folder)
