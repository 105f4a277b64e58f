"""Caches on a model of every family whose blocks diffusers knows: keeping nothing changes no bit, keeping saves."""

import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.speed.first_block_cache import FirstBlockCache
from kinema.speed.pab import PAB
from kinema.speed.sea_cache import SeaCache
from kinema.speed.taylorseer import TaylorSeer

NAMES = ("cogvideox 5b", "hunyuan t2v", "ltx 0.9.0 t2v", "mochi")
STEPS = 3


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory):
    case = cases()[request.param]
    backbone = load(case.build(tmp_path_factory.mktemp("cached")), device="cpu", dtype="float32")
    asked = Request(prompt="a red ball", seed=3, **{**case.request, "num_inference_steps": STEPS})
    guides = list(case.guides) or ([CFG(scale=case.scale)] if case.scale != 1 else [])

    def run(*parts):
        latents = []
        sample(backbone, asked, [*guides, *parts], on_step=lambda step, x: latents.append(x))
        return latents[-1]

    return backbone, run


def test_what_keeps_nothing_changes_no_bit(model):
    _, run = model
    plain = run()
    assert torch.equal(run(FirstBlockCache(threshold=0)), plain)
    assert torch.equal(run(PAB(noise_range=(1.0, 0.0), self_every=1, cross_every=1)), plain)


@pytest.mark.parametrize(
    "part, last",
    [(FirstBlockCache(threshold=1e9), 1), (SeaCache(threshold=1e9), 2), (PAB(noise_range=(1.0, 0.0)), 2)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_cache_leaves_the_last_block_out(part, last, model):
    backbone, run = model
    computed = []
    _, attn = list(backbone.attentions())[-1]
    hook = attn.to_q.register_forward_pre_hook(lambda *_: computed.append(True))
    run(part)
    hook.remove()
    assert len(computed) == last


@pytest.mark.parametrize("name", ["ltx 2.0 t2v", "wan 2.1 vace"])
def test_every_attention_of_the_blocks_is_continued(name, tmp_path):
    case, computed = cases()[name], {}
    backbone = load(case.build(tmp_path), device="cpu", dtype="float32")
    for i, (_, attn) in enumerate(backbone.attentions()):
        computed[i] = 0
        attn.to_q.register_forward_pre_hook(lambda *_, i=i: computed.update({i: computed[i] + 1}))
    asked = Request(prompt="a red ball", seed=3, **{**case.request, "num_inference_steps": 4})
    sample(backbone, asked, [TaylorSeer(warm_up=1)])
    assert set(computed.values()) == {2}  # the first step and the third


def test_samples_that_are_called_one_by_one_do_not_mix(tmp_path):
    case = cases()["skyreels v2, a time per frame"]
    backbone = load(case.build(tmp_path), device="cpu", dtype="float32")
    asked = Request(prompt="a red ball", seed=3, **{**case.request, "num_inference_steps": STEPS})
    part, found = PAB(noise_range=(1.0, 0.0), self_every=STEPS), {}
    for joint in (True, False):
        backbone.joint_branches = joint
        sample(backbone, asked, [CFG(scale=case.scale), part], on_step=lambda step, x, j=joint: found.update({j: x}))
    torch.testing.assert_close(found[True], found[False], atol=1e-5, rtol=0)


def test_a_unet_has_no_caches_of_diffusers(tmp_path):
    backbone = load(cases()["animatediff"].build(tmp_path), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="pab cannot run .* diffusers has no caches for its UNetMotionModel"):
        sample(backbone, Request(prompt="a red ball", num_inference_steps=1), [PAB(noise_range=(1.0, 0.0))])
