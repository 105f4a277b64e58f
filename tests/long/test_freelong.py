"""FreeLong: the spectral split sums to the identity, near frames as a mask by hand, text as with all frames."""

import math

import pytest
import torch

from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions
from kinema.core.run import Run
from kinema.long.freelong import FreeLong, _State, near, spectral_blend
from kinema.request import Request
from long.test_freenoise import attending, plain

CUTS = (0.25, 0.5)


@pytest.mark.parametrize("size", [(8, 4, 6), (7, 5, 3), (6, 1, 1)])
def test_the_split_is_that_of_the_formula_and_sums_to_the_identity(size):
    low, high = torch.randn(2, 2, 3, *size, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spectral_blend(low, low, *CUTS), low)
    t, y, x = torch.meshgrid(*(2 * torch.fft.fftfreq(n) for n in size), indexing="ij")
    kept = torch.exp(-((t / 0.25) ** 2 + (y / 0.5) ** 2 + (x / 0.5) ** 2) / 2)[..., None]
    over = (2, 3, 4)
    by_hand = torch.fft.ifftn(
        kept * torch.fft.fftn(low, dim=over) + (1 - kept) * torch.fft.fftn(high, dim=over), dim=over
    )
    torch.testing.assert_close(spectral_blend(low, high, *CUTS), by_hand.real)


def test_a_wave_keeps_what_the_filter_leaves_of_its_frequency():
    wave = torch.cos(2 * math.pi * 2 * torch.arange(16) / 16).reshape(1, 1, 16, 1, 1, 1).expand(1, 1, 16, 4, 4, 1)
    kept = math.exp(-((2 * 2 / 16 / 0.25) ** 2) / 2)
    torch.testing.assert_close(spectral_blend(wave, torch.zeros_like(wave), *CUTS), kept * wave)


def test_the_near_of_the_ends_is_shifted():
    assert [near(i, 8, 4) for i in range(8)] == [(0, 4), (0, 4), (0, 5), (1, 6), (2, 7), (3, 8), (4, 8), (4, 8)]


@pytest.mark.parametrize("kind", ["joint", "temporal"])
@pytest.mark.parametrize("scaled", [False, True])
def test_attention_is_the_blend_of_all_and_near_frames(kind, scaled):
    part, seen, frames, cells = FreeLong(global_scale=scaled), [], 8, 6
    text, batch, many = (2, 1, cells) if kind == "joint" else (0, cells, 1)
    q, k, v = torch.randn(3, batch, 2, text + frames * many, 4, generator=torch.Generator().manual_seed(0))
    places = torch.zeros(frames * many, 3, dtype=torch.long)
    places[:, 0] = torch.arange(frames * many) // many
    positions, step = Positions(places, places, first=text), attending(part, (1, 4, frames, 2, 3), _State(4, 1))
    found = part.attend(step, Site(0, kind, 2, 4), q, k, v, positions, plain(seen))

    frame = torch.cat([torch.full((text,), -1), places[:, 0]])
    spans = torch.tensor([near(i, frames, 4) for i in range(frames)])[frame.clamp(min=0)]
    sees = (frame < 0) | ((frame >= spans[:, :1]) & (frame < spans[:, 1:]))
    logits = q @ k.mT / 2
    everywhere = logits.softmax(-1) @ v
    near_only = logits.masked_fill(~sees, -torch.inf).softmax(-1) @ v

    def volume(u):
        if kind == "joint":
            return u[:, :, text:].unflatten(2, (frames, 2, 3))
        return u.unflatten(0, (1, 2, 3)).permute(0, 3, 4, 1, 2, 5)

    blended = spectral_blend(volume(everywhere), volume(near_only), 0.25, 0.25)
    torch.testing.assert_close(volume(found), blended)
    assert torch.equal(found[:, :, :text], everywhere[:, :, :text])
    assert (volume(found) - volume(everywhere)).abs().max() > 1e-2
    assert torch.equal(seen[0].q, places * torch.tensor([0.5, 1, 1]) if scaled else places)
    assert seen[1].k[:, 0].max() == (3 if kind == "joint" else 7)


def test_near_frames_as_many_as_the_clip_has_are_all(tiny_wan):
    from kinema.backbones.load import load

    backbone = load(tiny_wan, device="cpu", dtype="float32")
    request = Request(prompt="a red ball", num_frames=21, height=32, width=32, num_inference_steps=2, seed=1)

    def velocity(*parts):
        with torch.no_grad(), Run.open(backbone, request, parts) as run:
            return run.velocity(run.schedule[0], torch.ones(run.conditions.shape).cumsum(2), "cond")

    assert torch.equal(velocity(FreeLong(window=6)), velocity())
    assert (velocity(FreeLong(window=2)) - velocity()).abs().max() > 1e-4
    for part, says in [
        (FreeLong(time_cutoff=0.0), "freelong has time_cutoff 0.0 and space_cutoff 0.25; use above 0"),
        (FreeLong(window=2, stride=3), "freelong has windows of 2 latent frames every 3"),
    ]:
        with pytest.raises(KinemaError, match=says):
            velocity(part)
