"""Attention taps: nothing changes when nothing is asked, everything is put back, and positions are the rotary ones."""

from dataclasses import dataclass

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.attention import Positions
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request


def picture(tmp_path):
    from PIL import Image

    path = tmp_path / "image.png"
    Image.effect_mandelbrot((64, 32), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    return path


def latents(backbone, *techniques, **fields):
    request = Request(prompt="a red ball", num_frames=9, height=32, width=64, num_inference_steps=2, seed=3, **fields)
    seen = []
    sample(backbone, request, techniques, on_step=lambda step, x: seen.append(x))
    return seen[-1]


@dataclass(frozen=True, kw_only=True)
class Looks(Technique):
    """Passes everything on, and notes what it saw."""

    seen: list
    kinds: tuple[str, ...] = ("self", "cross")

    def wants(self, site):
        return site.kind in self.kinds

    def attend(self, step, site, q, k, v, positions, next):
        self.seen.append((site.block, site.kind, tuple(q.shape), tuple(k.shape), positions))
        return next(q, k, v, positions)


@pytest.mark.parametrize("kind", ["wan22_ti2v", "wan21_i2v", "wan22_t2v"])
def test_looking_changes_no_bit_and_leaves_nothing(kind, tiny_folder, tmp_path):
    backbone = load(tiny_folder(kind), device="cpu", dtype="float32")
    fields = dict(image=picture(tmp_path)) if backbone.needs_image else {}
    before = {name: id(p) for name, p in backbone.transformer.attn_processors.items()}
    tree = repr(backbone.transformer)
    plain = latents(backbone, **fields)
    look = Looks(seen=[])
    assert torch.equal(latents(backbone, look, **fields), plain)
    assert len(look.seen) == 2 * len(backbone.sites)
    assert {name: id(p) for name, p in backbone.transformer.attn_processors.items()} == before
    assert repr(backbone.transformer) == tree


def test_sees_tokens_before_rotary_with_their_grid(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    look = Looks(seen=[], block_range=(1, 1))
    latents(backbone, look)
    (block, kind, q, k, positions), (*_, text, reading) = look.seen[:2]
    tokens = 3 * 1 * 2
    assert (block, kind, q, k) == (1, "self", (1, 2, tokens, 12), (1, 2, tokens, 12))
    assert torch.equal(positions.q, backbone.grid((1, 48, 3, 2, 4)))
    assert text == (1, 2, 512, 12) and reading.q is positions.q and len(reading.k) == 0
    assert {entry[0] for entry in look.seen} == {1}


@dataclass(frozen=True, kw_only=True)
class Moves(Technique):
    by: tuple[float, float, float]
    keys: bool = True  # move the keys along with the queries

    def positions(self, step, site, positions):
        offset = torch.tensor(self.by)
        return Positions(positions.q + offset, positions.k + offset * self.keys)


def test_only_relative_positions_count(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    plain = latents(backbone)
    # Not moved, but recomputed: the table made from positions is the model's own.
    assert torch.equal(latents(backbone, Moves(by=(0.0, 0.0, 0.0))), plain)
    torch.testing.assert_close(latents(backbone, Moves(by=(5.0, -3.0, 2.5))), plain, atol=1e-5, rtol=1e-5)
    assert (latents(backbone, Moves(by=(2.0, 0.0, 0.0), keys=False)) - plain).abs().max() > 1e-4


@dataclass(frozen=True, kw_only=True)
class Silences(Technique):
    def attend(self, step, site, q, k, v, positions, next):
        return torch.zeros_like(q)


@dataclass(frozen=True, kw_only=True)
class Silent(Technique):
    name = "silent"

    def context(self, step, site, frames):
        return torch.ones(1, frames, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class Fails(Technique):
    def attend(self, step, site, q, k, v, positions, next):
        raise RuntimeError("inside attention")


def test_what_it_returns_counts_and_only_in_its_range(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    plain = latents(backbone)
    assert (latents(backbone, Silences()) - plain).abs().max() > 1e-4
    first = Looks(seen=[], noise_range=(1.0, 0.95))
    latents(backbone, first)
    assert len(first.seen) == len(backbone.sites)  # in the first of two steps
    look = Looks(seen=[], block_range=(1, 1))
    latents(backbone, Silences(block_range=(0, 0)), look)  # both on one site would show it block 0 too
    latents(backbone, look, Silences(block_range=(0, 0)))
    assert {entry[0] for entry in look.seen} == {1}


@pytest.mark.parametrize(
    "part, says",
    [
        (Looks(seen=[], block_range=(7, 9)), r"block_range of .* is \(7, 9\), and model .* has 2 blocks; .* 0 to 1$"),
        (Looks(seen=[], block_range=(1, 2)), "has 2 blocks"),
        (Looks(seen=[], kinds=("temporal",)), "looks at no attention that model .* has; its kinds are cross, self"),
        (
            Looks(seen=[], noise_range=(0.0, 0.0)),
            r"noise_range of .* is \(0.0, 0.0\), and none of the 2 steps is in it",
        ),
        (CFG(block_range=(0, 1)), "block_range of cfg .* looks at no attention"),
        (Silent(), "silent lets frames read other texts and names none; call run.read_texts at start"),
    ],
)
def test_a_technique_that_could_never_act_is_refused(tiny_wan, part, says):
    with pytest.raises(KinemaError, match=says):
        latents(load(tiny_wan, device="cpu", dtype="float32"), part)


def test_a_failure_inside_restores_the_model(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    before = {name: id(p) for name, p in backbone.transformer.attn_processors.items()}
    with pytest.raises(RuntimeError, match="inside attention"):
        latents(backbone, Fails())
    assert {name: id(p) for name, p in backbone.transformer.attn_processors.items()} == before


def test_overlapping_runs_do_not_see_each_other(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    plain, inner = latents(backbone), []

    @dataclass(frozen=True, kw_only=True)
    class Nests(Technique):
        def after_step(self, step, x):
            inner.append(latents(backbone))  # a run without taps inside one with taps
            return x

    changed = latents(backbone, Silences())
    assert torch.equal(
        latents(backbone, Silences(), Nests(), CFG(scale=1.0)), latents(backbone, Silences(), CFG(scale=1.0))
    )
    assert all(torch.equal(x, plain) for x in inner) and not torch.equal(changed, plain)
