"""Maps of frames that follow a reference, and values whose changes along frames are made larger."""

from types import SimpleNamespace

import pytest
import torch

from kinema.core.attending import Attention
from kinema.core.attention import Site, Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions
from kinema.core.technique import Step
from kinema.quality.broadway import BroadWay, high_band, kept_energy


def attention():
    def attend(q, k, v, positions, bias):
        return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v

    return Attention.of(lambda q, k, positions: (q, k), attend)


def opened(part, sites, shape, patch=(1, 1, 1)):
    """A step of a run on a model with these sites; (B, C, T, H, W) are its latents."""
    backbone = SimpleNamespace(sites=sites, patch=patch)
    run = SimpleNamespace(backbone=backbone, conditions=SimpleNamespace(shape=shape), state={})
    run.state = type("State", (dict,), {"__getitem__": lambda s, t: dict.__getitem__(s, id(t))})()
    run.state.__class__.__setitem__ = lambda s, t, value: dict.__setitem__(s, id(t), value)
    part.start(run)
    return Step(0, 1, 0.95, 0.9, run=run, branch="cond")


@pytest.fixture
def call():
    token = current_taps.set(Taps(None, []))
    yield
    current_taps.reset(token)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TEMPORAL = [Site(b, "temporal", 2, 8, up) for b, up in [(0, None), (1, None), (2, 0), (3, 0), (4, 1), (5, 1), (6, 2)]]


def test_the_map_is_its_mean_and_the_rest_made_larger(call):
    part = BroadWay(alpha=0.0, beta=3.0)
    q, k, v = (normal(8, 2, 6, 8, seed=i) for i in range(3))  # 2 x 2 places of 2 samples, 6 frames
    step = opened(part, TEMPORAL, (2, 4, 6, 2, 2))
    found = part.attend(step, TEMPORAL[4], q, k, v, None, attention())
    a = (q @ k.mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(found, (1 / 6 + 3.0 * (a - 1 / 6)) @ v)
    # With a narrower band only the highest frequencies, those of 3 in 6 frames here, grow.
    part = BroadWay(alpha=0.0, beta=3.0, tau=0.0)
    found = part.attend(opened(part, TEMPORAL, (2, 4, 6, 2, 2)), TEMPORAL[4], q, k, v, None, attention())
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1])
    highest = (a @ signs)[..., None] * signs / 6
    torch.testing.assert_close(found, (a + 2.0 * highest) @ v)


def test_the_reference_is_followed_and_the_energy_kept(call):
    part = BroadWay(alpha=0.6, beta=1.0)
    step = opened(part, TEMPORAL, (1, 4, 6, 4, 4))
    ahead, q, k = (
        0.3 * normal(4, 2, 6, 8, seed=1),
        normal(16, 2, 6, 8),
        normal(16, 2, 6, 8, seed=2),
    )
    for site in TEMPORAL[:4]:  # ahead of the reference nothing is done
        assert torch.equal(
            part.attend(step, site, ahead, ahead, ahead, None, attention()), attention()(ahead, ahead, ahead, None)
        )
    part.attend(step, TEMPORAL[4], ahead, ahead, ahead, None, attention())
    found = part.attend(step, TEMPORAL[6], q, k, torch.eye(6).expand(16, 2, 6, 6), None, attention())
    own, reference = (q @ k.mT / 8**0.5).softmax(-1), (ahead @ ahead.mT / 8**0.5).softmax(-1)
    larger = torch.nn.functional.interpolate(
        reference.reshape(2, 2, 72).permute(2, 0, 1)[None], (4, 4), mode="bilinear"
    )[0].permute(1, 2, 0).reshape(16, 2, 6, 6)  # fmt: skip
    guided = own + 0.6 * (larger - own)
    energies = [(a**2).sum(-1).mean() for a in (own, guided)]
    assert energies[1] < energies[0]
    torch.testing.assert_close((found**2).sum(-1).mean(), energies[0])
    b = ((energies[0] - 1 / 6) / (energies[1] - 1 / 6)).sqrt()
    torch.testing.assert_close(found, 1 / 6 + b * (guided - 1 / 6))


def test_energy_is_that_of_each_sample():
    maps = normal(8, 2, 5, 5).softmax(-1)
    flat = torch.lerp(maps, torch.full_like(maps, 0.2), 0.5)
    found = kept_energy(maps, flat, high_band(5, None), 2)
    torch.testing.assert_close(found, torch.full((2,), 2.0))
    assert kept_energy(maps, torch.full_like(maps, 0.2), high_band(5, None), 2).tolist() == [1.0, 1.0]
    assert high_band(16, 7.0).tolist() == [False] + [True] * 15 and high_band(5, 1.0).tolist() == [False] * 2 + [
        True
    ] * 2 + [False]


@pytest.mark.parametrize("kind, words", [("self", 0), ("joint", 3)])
def test_in_one_sequence_values_are_scaled_at_each_place(call, kind, words):
    frames, cells = 4, 6
    count, places = words + frames * cells, torch.zeros(frames * cells, 3)
    sites = [Site(b, kind, 2, 8) for b in range(4)]
    q, k, v = (normal(2, 2, count, 8, seed=i) for i in range(3))
    positions, shape = Positions(places, places, first=words), (2, 4, frames, 4, 6)
    part = BroadWay(alpha=0.0, beta=2.0)
    step = opened(part, sites, shape, (1, 2, 2))
    assert torch.equal(part.attend(step, sites[0], q, k, v, positions, attention()), attention()(q, k, v, None))
    found = part.attend(step, sites[3], q, k, v, positions, attention())
    mean = v[:, :, words:].unflatten(2, (frames, cells)).mean(2).repeat(1, 1, frames, 1)
    moved = torch.cat([v[:, :, :words], mean + 2 * (v[:, :, words:] - mean)], dim=2)
    torch.testing.assert_close(found, attention()(q, k, moved, None))
    # A reference that is the same as the block that follows it changes nothing more.
    part = BroadWay(alpha=0.5, beta=2.0)
    step = opened(part, sites, shape, (1, 2, 2))
    for site in sites[1:]:
        torch.testing.assert_close(part.attend(step, site, q, k, v, positions, attention()), found)
    current_taps.set(Taps(None, []))  # another call
    part.attend(step, sites[1], q, k, v, positions, attention())
    other = part.attend(step, sites[3], q.flip(2), k, v, positions, attention())
    assert not torch.allclose(other, attention()(q.flip(2), k, moved, None), atol=1e-3)


def test_refuses_what_has_no_reference():
    with pytest.raises(KinemaError, match="use 0..1, 1 or more, and 0 or more"):
        opened(BroadWay(beta=0.5), TEMPORAL, (1, 4, 6, 4, 4))
    with pytest.raises(KinemaError, match="the way up of a UNet"):
        opened(BroadWay(block_range=(0, 3)), TEMPORAL, (1, 4, 6, 4, 4))
