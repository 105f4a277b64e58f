"""Compiled blocks give the same, also for techniques that look into them. The compiler itself is PyTorch's to test."""

from dataclasses import dataclass

import pytest
import torch

from kinema.backbones import compiling
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.request import Request
from kinema.speed.first_block_cache import FirstBlockCache
from kinema.speed.pab import PAB


@dataclass(frozen=True, kw_only=True)
class Scaled(Technique):
    """Another change of attention in every step."""

    by: float = 0.1

    def attend(self, step, site, q, k, v, positions, next):
        return (1 + self.by * step.index) * next(q, k, v, positions)


@dataclass(frozen=True, kw_only=True)
class SkipOne(Technique):
    def skip(self, step, block):
        return block == 1 and step.index == 1


def run(backbone, *parts):
    request = Request(prompt="a red ball", num_inference_steps=3, num_frames=5, height=32, width=32, seed=3)
    latents = []
    sample(backbone, request, parts, on_step=lambda step, x: latents.append(x))
    return latents[-1]


@pytest.mark.parametrize("repeated", [True, False], ids=["named by diffusers", "found by their attention"])
def test_compiled_blocks_give_the_same(repeated, tiny_wan, monkeypatch):
    plain, compiled = (load(tiny_wan, device="cpu", dtype="float32") for _ in range(2))
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    if not repeated:
        monkeypatch.setattr(type(compiled.transformer), "_repeated_blocks", None)
    compiling.compile_blocks(compiled, [compiled.transformer], backend="eager")
    assert all(block._compiled_call_impl is not None for block in compiled.transformer.blocks)
    for parts in ([], [Scaled()], [Scaled(by=0.7)], [SkipOne()], [], [FirstBlockCache(threshold=1e9)]):
        torch.testing.assert_close(run(compiled, *parts), run(plain, *parts), atol=1e-5, rtol=0)
    with pytest.raises(KinemaError, match="pab cannot run on model .*compiled"):
        run(compiled, PAB())


def test_compile_without_a_compiler_is_refused(tiny_wan, monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(KinemaError, match="needs a C\\+\\+ compiler, .* this machine has none"):
        load(tiny_wan, device="cpu", dtype="float32", compile=True)


def test_the_switch_compiles(tiny_wan, monkeypatch):
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    backbone = load(tiny_wan, device="cpu", dtype="float32", compile=True)  # nothing is compiled before the first call
    assert all(block._compiled_call_impl is not None for block in backbone.transformer.blocks)
