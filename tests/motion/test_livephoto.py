"""How much moves: what a clip's motion is, how it is told, and that nothing changes before anything is learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import adapters
from kinema.backbones.load import load
from kinema.core.adapter import FOLDER
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.layers.pace import pace
from kinema.motion.livephoto import EDGES, LivePhoto, LivePhotoNetwork, WordWeights, between
from kinema.request import Request
from kinema.training.signals import SIGNALS, Material
from kinema.world.caption import caption
from kinema.world.sample import sample_spec

ASKED = Request(prompt="a red ball rolls left", num_frames=9, height=32, width=32, num_inference_steps=2, seed=1)


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    return load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")


def written(backbone, folder, fresh):
    """The folder of an adapter as a training begins, or with random weights."""
    made, sizes = adapters.network(LivePhoto, backbone, fresh=fresh)
    folder.mkdir()
    adapters.write_adapter(folder, "livephoto", made, sizes, card={}, dtype=torch.float32)
    return str(folder)


def shifted(size, step, count=6):
    """A soft pattern that goes right by `step` pixels a frame, (T, size, size, 3) uint8."""
    noise = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(noise, (size, 2 * size), mode="bicubic")[0, 0].clamp(0, 1) * 255
    first = [size // 2 - step * i for i in range(count)]
    return np.stack([whole[:, x : x + size, None].expand(-1, -1, 3).byte().numpy() for x in first])


def test_the_pace_of_a_known_shift():
    # 4 of 64 pixels a frame, 8 frames a second: half a height a second, whatever size and rate
    assert pace(shifted(64, 4), 8.0) == pytest.approx(0.5, rel=0.1)
    assert pace(shifted(128, 8), 8.0) == pytest.approx(0.5, rel=0.1)
    assert pace(shifted(64, 2), 16.0) == pytest.approx(0.5, rel=0.1)
    assert pace(shifted(64, 0), 8.0) == 0.0 and pace(shifted(64, 4)[:1], 8.0) == 0.0


def test_only_what_moves_counts():
    clip = np.full((6, 64, 64, 3), 90, np.uint8)
    clip[:, :, :32] = shifted(64, 2)[:, :, :32]
    assert pace(clip, 8.0) == pytest.approx(pace(shifted(64, 2), 8.0), rel=0.2)


def test_between_two_levels_lies_their_mixture():
    table = torch.tensor([[0.0, 1.0], [10.0, 3.0], [20.0, -1.0]])
    found = between(table, torch.tensor([0.0, 0.25, 1.0, 1.5, 2.0]))
    assert found.tolist() == [[0.0, 1.0], [2.5, 1.5], [10.0, 3.0], [15.0, 1.0], [20.0, -1.0]]


def test_a_motion_is_the_same_level_everywhere(backbone):
    network, sizes = adapters.network(LivePhoto, backbone)
    motion = torch.tensor([0.0, EDGES[0], (EDGES[3] + EDGES[4]) / 2, EDGES[9] - 1e-4, 3.0])
    assert network.level_of({"motion": motion}).tolist() == [0, 1, 4, 9, 10]
    assert sizes["edges"] == list(EDGES)
    with pytest.raises(ValueError, match="edges are .*; use 10 rising numbers above 0"):
        LivePhotoNetwork(network.face, **{**sizes, "edges": EDGES[::-1]})


def test_a_clip_tells_its_motion():
    still, fast = np.stack([shifted(64, 0)[0]] * 6), shifted(64, 4)
    material = Material(frames=torch.from_numpy(np.stack([still, fast])), fps=8.0)
    motion = SIGNALS["intensity"].kept(material, None)["motion"]
    assert motion.tolist() == [0.0, pytest.approx(pace(fast, 8.0))]


def test_words_begin_as_they_are_and_can_learn():
    torch.manual_seed(0)
    words, text = WordWeights(16, 8), torch.randn(2, 5, 16)
    text[:, 3:] = 0.0
    found = words(text, torch.randn(2, 2, 16))
    assert torch.equal(found, text)
    found.square().sum().backward()
    assert words.gate.grad.abs() > 0 and words.weight.weight.grad.abs().sum() > 0
    with torch.no_grad():
        words.gate.fill_(0.5)
        words.weight.bias.fill_(1.0)
    slow, fast = (words(text, torch.full((2, 2, 16), value)) for value in (0.0, 1.0))
    assert torch.equal(fast[:, 3:], text[:, 3:]) and (fast[:, :3] - text[:, :3]).abs().max() > 0.1
    assert not torch.allclose(slow, fast)


def test_before_it_has_learned_nothing_changes(backbone, tmp_path):
    plain = sample(backbone, ASKED, [])
    fresh = LivePhoto(adapter=written(backbone, tmp_path / FOLDER, fresh=True), intensity=7.0)
    assert torch.equal(sample(backbone, ASKED, [fresh]), plain)


def test_an_intensity_is_told_and_a_weight_of_0_is_none(backbone, tmp_path):
    plain = sample(backbone, ASKED, [])
    asked = LivePhoto(adapter=written(backbone, tmp_path / FOLDER, fresh=False), intensity=2.0)
    made = [sample(backbone, ASKED, [replace(asked, intensity=level)]).float() for level in (2.0, 2.5, 3.0)]
    assert not torch.equal(made[0], plain.float())
    apart = [(a - b).abs().mean() for a, b in ((made[0], made[1]), (made[1], made[2]), (made[0], made[2]))]
    assert 0 < apart[0] < apart[2] and 0 < apart[1] < apart[2]
    assert torch.equal(sample(backbone, ASKED, [replace(asked, weight=0.0)]), plain)


@pytest.mark.parametrize("intensity", [-1.0, 10.5, float("nan")])
def test_an_intensity_that_there_is_not(backbone, tmp_path, intensity):
    folder = written(backbone, tmp_path / FOLDER, fresh=True)
    with pytest.raises(KinemaError, match="intensity of livephoto is .*; use 0 to 10"):
        sample(backbone, ASKED, [LivePhoto(adapter=folder, intensity=intensity)])


def test_paces_are_the_same_words_with_other_amounts():
    specs = [sample_spec(seed, "paces") for seed in range(300)]
    events = [spec.events[0] for spec in specs if spec.events]
    assert all(spec.camera.move == "still" and spec.ground != "water" and len(spec.events) < 2 for spec in specs)
    assert 0.02 < 1 - len(events) / len(specs) < 0.12
    amounts = np.array([event.amount for event in events])
    assert amounts.min() < 0.05 and amounts.max() > 1.35 and abs(amounts.mean() - 0.7) < 0.1
    for spec in specs[:20]:
        other = replace(spec, events=tuple(replace(event, amount=0.1) for event in spec.events))
        assert caption(other, 3) == caption(spec, 3)
