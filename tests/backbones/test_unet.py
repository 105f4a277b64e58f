"""AnimateDiff: its folders, the times it is told, its attention sites, and what it refuses."""

import json
from dataclasses import dataclass, field, replace

import pytest
import torch

from backbones.families.unet import SIZE, animatediff, ddim
from kinema.backbones.load import load
from kinema.backbones.unet_attention import sines
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise, sample
from kinema.core.technique import Technique
from kinema.request import Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return animatediff(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture(scope="module")
def backbone(folder):
    return load(folder, device="cpu", dtype="float32")


def test_sites_are_in_the_order_they_are_passed(backbone):
    kinds = [(site.block, site.kind) for site in backbone.sites]
    both, motion = ["spatial", "cross", "temporal"], ["temporal"]
    blocks = [both, both, motion, motion, both, *[motion] * 3, *[both] * 3]  # down, middle, up
    assert kinds == [(i, kind) for i, block in enumerate(blocks) for kind in block]
    assert {site.heads for site in backbone.sites} == {2}


@dataclass(frozen=True, kw_only=True)
class Looks(Technique):
    seen: list = field(default_factory=list)

    def wants(self, site):
        return site.block == 0

    def attend(self, step, site, q, k, v, positions, next):
        places = None if positions is None else positions.q[:, 0].tolist()
        self.seen.append((site.kind, tuple(q.shape), tuple(k.shape), places))
        return next(q, k, v, positions)


def test_spatial_attention_sees_places_and_temporal_attention_frames(backbone):
    look = Looks()
    sample(backbone, Request(prompt="a red ball", seed=3, **{**SIZE, "num_inference_steps": 1}), [look])
    frames, places = 4, 4 * 8
    inside, over = (frames, 2, places, 8), (places, 2, frames, 8)
    assert look.seen == [
        ("spatial", inside, inside, None),
        ("cross", inside, (frames, 2, 77, 8), None),
        ("temporal", over, over, [0, 1, 2, 3]),
        ("temporal", over, over, [0, 1, 2, 3]),
    ]


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Technique):
    """Lets attention over frames see each frame at the place that `place` gives it."""

    place: object

    def wants(self, site):
        return site.kind == "temporal"

    def positions(self, step, site, positions):
        places = self.place(positions.q)
        return replace(positions, q=places, k=places)


def test_moved_frames_are_those_of_a_table_with_other_rows(backbone):
    request = Request(prompt="a red ball", seed=3, **{**SIZE, "num_inference_steps": 2})
    layers = [m for m in backbone.unet.modules() if getattr(m, "pos_embed", None) is not None]
    own = [layer.pos_embed.pe.clone() for layer in layers]
    assert torch.equal(own[0][0, 9:13], sines(own[0][0, :9], torch.arange(9, 13)))

    def with_rows(rows):
        for layer, pe in zip(layers, own, strict=True):
            layer.pos_embed.pe = rows(pe)
        try:
            return denoise(backbone, request)[0]
        finally:
            for layer, pe in zip(layers, own, strict=True):
                layer.pos_embed.pe = pe

    for moved, rows in [
        (lambda p: p + torch.tensor([7, 0, 0]), lambda pe: pe[:, 7:]),
        (lambda p: p.flip(0), lambda pe: pe[:, :4].flip(1)),
        (lambda p: p * 0.5, lambda pe: sines(pe[0], torch.arange(4) / 2)[None]),
        (lambda p: p + torch.tensor([40, 0, 0]), lambda pe: sines(pe[0], torch.arange(40, 44))[None]),
    ]:
        found = denoise(backbone, request, [Elsewhere(place=moved)])[0]
        torch.testing.assert_close(found, with_rows(rows), atol=2e-5, rtol=1e-4)
    assert (found - denoise(backbone, request)[0]).abs().max() > 1e-3
    own_places = denoise(backbone, request, [Elsewhere(place=lambda p: p.clone())])[0]
    assert torch.equal(own_places, denoise(backbone, request)[0])


def test_one_cell_of_the_latents_reaches_the_same_place_of_the_same_frame(backbone):
    conditions = backbone.prepare([Request(prompt="a red ball", **SIZE)])
    grid = backbone.grid(conditions.shape).tolist()
    seen = []
    hook = backbone.unet.conv_in.register_forward_hook(lambda module, args, out: seen.append(out))
    x = torch.zeros(conditions.shape)
    other = x.clone()
    other[0, :, 2, 1, 5] = 1.0
    backbone.velocity(x, 0.5, conditions)
    backbone.velocity(other, 0.5, conditions)
    hook.remove()
    changed = (seen[1] - seen[0]).abs().sum(1).nonzero()  # frame, row, column
    assert {tuple(cell) for cell in changed.tolist()} == {(2, r, c) for r in range(3) for c in range(4, 7)}
    assert grid[2 * 32 + 8 + 5] == [2, 1, 5]


def test_its_time_is_exact_at_the_levels_of_training_and_between_them_in_between(backbone):
    x = torch.zeros(1, 4, 2, 4, 8)
    conditions = backbone.prepare([Request(prompt="a red ball", **SIZE)])
    for step in (0, 1, 500, 999):
        assert backbone.network_time(backbone.clock.levels[step], x, conditions).item() == step
    low, high = backbone.clock.levels[500:502]
    assert 500 < backbone.network_time((low + high) / 2, x, conditions).item() < 501
    levels = torch.tensor([low, high], dtype=torch.float64)
    assert backbone.network_time(levels, x.expand(2, -1, -1, -1, -1), conditions).tolist() == [500, 501]
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        backbone.velocity(x, torch.full((1, 2), 0.5), conditions)


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(), "prompt is empty, and model .* reads one"),
        (dict(prompt="a", image="a.png"), "makes video from text alone"),
        (dict(prompt="a", num_frames=33), "num_frames is 33; this model makes a multiple of 1 plus 1, 1 to 32"),
    ],
)
def test_refuses_requests_in_one_sentence(backbone, fields, says):
    with pytest.raises(KinemaError, match=says):
        backbone.prepare([Request(**fields)])


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_refuses_folders_in_one_sentence(tmp_path):
    zero_snr = animatediff(tmp_path / "zero_snr", lambda: ddim(rescale_betas_zero_snr=True))
    with pytest.raises(KinemaError, match="begins with noise alone"):
        load(zero_snr, device="cpu")
    other = animatediff(tmp_path / "other")
    change(other / "scheduler" / "scheduler_config.json", _class_name="PNDMScheduler")
    with pytest.raises(KinemaError, match="is a PNDMScheduler; kinema knows DDIMScheduler"):
        load(other, device="cpu")
    change(other / "motion_adapter" / "config.json", motion_layers_per_block=1)
    with pytest.raises(KinemaError, match="unet and motion_adapter of model .* do not fit: Incompatible"):
        load(other, device="cpu")
