"""What is left out, that nothing mixes, and that nothing stays behind."""

import threading
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from diffusers.hooks import HookRegistry, ModelHook

from kinema.backbones.load import load
from kinema.claims.magcache import calibrate
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.registry import techniques
from kinema.core.technique import Technique
from kinema.core.windows import Window
from kinema.guidance.cfg import CFG
from kinema.guidance.pag import PAG
from kinema.request import Request
from kinema.speed.cfg_cache import CFGCache
from kinema.speed.first_block_cache import FirstBlockCache
from kinema.speed.magcache import MagCache, nearest
from kinema.speed.pab import PAB
from kinema.speed.sea_cache import SeaCache
from kinema.speed.taylorseer import TaylorSeer

STEPS = 6
ALWAYS = FirstBlockCache(threshold=1e9)  # computes its blocks once, and never again


def small(**fields):
    return Request(prompt="a red ball", num_frames=5, height=32, width=32, **fields)


def run(backbone, *parts, steps=STEPS, seed=3, on_step=None):
    request = small(num_inference_steps=steps, seed=seed)
    latents = []
    sample(backbone, request, parts, on_step=lambda s, x: (latents.append(x), on_step and on_step(s, x)))
    return latents[-1]


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


@pytest.fixture
def computed(backbone):
    """Calls of the first and the last block's self-attention that were computed: the rows of each."""
    blocks = backbone.transformer.blocks
    rows = {"first": [], "last": []}
    hooks = [
        block.attn1.to_q.register_forward_pre_hook(lambda _, args, name=name: rows[name].append(len(args[0])))
        for name, block in (("first", blocks[0]), ("last", blocks[-1]))
    ]
    yield rows
    for hook in hooks:
        hook.remove()


# Those of diffusers; the other one is for UNets.
CACHES = {n: e for n, e in techniques().items() if e.cls.overrides("cache") and n != "faster_diffusion"}


@pytest.mark.parametrize("name", CACHES)
def test_what_keeps_nothing_changes_no_bit(name, backbone):
    entry = CACHES[name]
    assert torch.equal(run(backbone, CFG(), entry.cls(**entry.neutral)), run(backbone, CFG()))


@pytest.mark.parametrize(
    "part, first, last",
    [
        (ALWAYS, 6, 1),
        (SeaCache(threshold=1e9), 3, 3),  # the first, the fourth after two in a row, and the last step
        (MagCache(ratios=(1.0,)), 2, 2),  # the first, and the sixth after four in a row
        (TaylorSeer(), 4, 4),  # three to begin with, then the fifth
        (TaylorSeer(lite=True), 4, 4),
        (PAB(), 5, 5),  # of the three steps between the levels 0.8 and 0.1, the second is left out
        (PAB(noise_range=(1.0, 0.0)), 3, 3),
        (CACHES["faster_cache"].cls(noise_range=(1.0, 0.0)), 3, 3),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_cache_leaves_blocks_out(part, first, last, backbone, computed):
    run(backbone, CFG(), part)
    assert (len(computed["first"]), len(computed["last"])) == (first, last)


def test_branches_of_the_guidance_do_not_mix(backbone, computed, monkeypatch):
    joint = run(backbone, CFG(), ALWAYS)
    assert computed["last"] == [2]
    monkeypatch.setattr(backbone, "joint_branches", False)
    apart = run(backbone, CFG(), ALWAYS)
    assert computed["last"] == [2, 1, 1]
    torch.testing.assert_close(apart, joint, atol=1e-5, rtol=0)
    run(backbone, PAG(), ALWAYS)  # its third branch leaves out nothing either, and is another
    assert computed["last"] == [2, 1, 1, 1, 1, 1]


@dataclass(frozen=True, kw_only=True)
class Twice(Technique):
    """Two calls a branch and step, as techniques of windows make them."""

    def velocity(self, step, x, branch, next):
        return (next(x) + next(2 * x)) / 3


def test_several_calls_of_a_branch_in_one_step_do_not_mix(backbone, computed):
    run(backbone, Twice(), ALWAYS)
    assert computed["last"] == [1, 1]


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Technique):
    """The first window twice in the first step, and behind it one window after the other."""

    def velocity(self, step, x, branch, next):
        parts = [Window(0, 1), Window(1 if step.index else 0, 2 if step.index else 1)]
        return torch.cat([next(w.of(x), w) for w in parts], dim=2)


def test_windows_do_not_mix_where_steps_have_other_calls(backbone, computed):
    run(backbone, Elsewhere(), ALWAYS)
    assert computed["last"] == [1, 1, 1]


def test_a_branch_that_was_left_out_for_a_step_begins_anew(backbone, computed):
    always = dict(noise_range=(1.0, 0.0))
    run(backbone, CFG(), CFGCache(**always, every=2), PAB(**always))
    assert len(computed["last"]) == 6  # every second step with the prompt, and all three without it


def test_each_of_two_experts_computes_its_first_call(tiny_folder):
    backbone, computed = load(tiny_folder("wan22_t2v"), device="cpu", dtype="float32"), []
    for name in ("transformer", "transformer_2"):
        to_q = getattr(backbone, name).blocks[-1].attn1.to_q
        to_q.register_forward_pre_hook(lambda *_, name=name: computed.append(name))
    run(backbone, CFG(), CACHES["faster_cache"].cls(noise_range=(1.0, 0.0)))
    assert computed == ["transformer"] + ["transformer_2"] * 2  # of two steps, and of four


def test_a_cache_rests_outside_its_noise_range(backbone, computed):
    run(backbone, FirstBlockCache(threshold=1e9, noise_range=(0.8, 0.1)))
    assert len(computed["last"]) == 4  # three steps outside, and the first inside


def test_two_threads_do_not_see_each_other(backbone):
    alone = {
        "plain": run(backbone, CFG()),
        "cached": run(backbone, CFG(), ALWAYS),
        "other": run(backbone, CFG(), PAB()),
    }
    parts = {"plain": [CFG()], "cached": [CFG(), ALWAYS], "other": [CFG(), PAB()]}
    barrier, found = threading.Barrier(3, timeout=60), {}

    def work(name):
        found[name] = run(backbone, *parts[name], on_step=lambda step, x: barrier.wait())

    threads = [threading.Thread(target=work, args=(name,)) for name in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torch.equal(alone["plain"], alone["cached"])
    assert all(torch.equal(found[name], alone[name]) for name in alone)


def test_nothing_stays_in_the_model(backbone):
    before = {name: dict(vars(module)) for name, module in backbone.transformer.named_modules()}

    def stop(step, x):
        raise RuntimeError("stopped")

    run(backbone, ALWAYS)
    with pytest.raises(RuntimeError, match="stopped"):
        run(backbone, PAB(), on_step=stop)
    after = {name: dict(vars(module)) for name, module in backbone.transformer.named_modules()}
    assert before.keys() == after.keys()
    for name, was in before.items():
        assert was.keys() == after[name].keys() and all(after[name][key] is value for key, value in was.items())


@dataclass(frozen=True, kw_only=True)
class SkipOne(Technique):
    def skip(self, step, block):
        return block == 1


@dataclass(frozen=True, kw_only=True)
class Half(Technique):
    def attend(self, step, site, q, k, v, positions, next):
        return 0.5 * next(q, k, v, positions)


@pytest.mark.parametrize("other", [SkipOne(), Half()], ids=["skip", "attend"])
def test_what_looks_into_the_model_still_does(other, backbone):
    seen = run(backbone, CFG(), other)
    assert not torch.equal(seen, run(backbone, CFG()))
    assert torch.equal(run(backbone, CFG(), other, PAB(self_every=1, cross_every=1)), seen)
    assert torch.equal(run(backbone, CFG(), other, FirstBlockCache(threshold=0)), seen)


class Counting(ModelHook):
    """As what brings weights to a device: around a module, and around its own forward."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def pre_forward(self, module, *args, **kwargs):
        self.seen.append("before")
        return args, kwargs

    def new_forward(self, module, *args, **kwargs):
        self.seen.append("around")
        return self.fn_ref.original_forward(*args, **kwargs)


@pytest.mark.parametrize("part, calls", [(ALWAYS, 1), (PAB(noise_range=(1.0, 0.0)), 6)], ids=["blocks", "attention"])
def test_hooks_around_modules_stay_around_them(part, calls, tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    plain = run(backbone, part)
    hooks = {"root": Counting(), "block": Counting()}
    for module, hook in ((backbone.transformer, hooks["root"]), (backbone.transformer.blocks[-1], hooks["block"])):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, "counting")
    assert torch.equal(run(backbone, part), plain)
    assert hooks["root"].seen == ["before", "around"] * STEPS
    assert hooks["block"].seen == ["before", "around"] * calls


def test_a_module_that_was_replaced_is_refused_where_a_cache_would_be_inside(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    block = backbone.transformer.blocks[0]
    block.forward = type(block).forward.__get__(block)
    run(backbone, ALWAYS, steps=2)
    with pytest.raises(KinemaError, match="pab cannot run on model .*replaced"):
        run(backbone, PAB(), steps=2)


@dataclass(frozen=True, kw_only=True)
class SkipFirst(SkipOne):
    def skip(self, step, block):
        return block == 0


def test_what_cannot_be_cached_is_refused_in_one_sentence(backbone, tiny_folder):
    with pytest.raises(KinemaError, match="first_block_cache looks at the first block"):
        run(backbone, SkipFirst(), ALWAYS)
    with pytest.raises(KinemaError, match="first_block_cache and pab both own 'cache'"):
        run(backbone, ALWAYS, PAB())
    with pytest.raises(KinemaError, match="magcache has no ratios for model"):
        run(load(tiny_folder("wan21_t2v"), device="cpu", dtype="float32"), MagCache())
    for kind, reason in (("wan21_vace", "counted twice"), ("skyreels", "does not know its blocks")):
        with pytest.raises(KinemaError, match=f"first_block_cache cannot run on model .*{reason}"):
            run(load(tiny_folder(kind), device="cpu", dtype="float32"), ALWAYS)


def test_magcache_knows_its_step_where_the_guidance_begins_late(backbone, computed):
    late = CFG(noise_range=(0.9, 0.0))  # the first two steps of six are without it
    run(backbone, late, MagCache(ratios=(1.0, 1.0, 1.0, 1.0, 1.0, 3.0)))
    assert computed["last"] == [1, 2, 2]  # the first, the first with guidance, and the last, whose ratio is 3
    assert nearest([1.0, 2.0, 3.0], 5) == [1.0, 1.0, 2.0, 3.0, 3.0]


def test_ratios_of_magcache_are_those_of_what_the_blocks_add(backbone):
    sizes, given = [], []
    blocks = backbone.transformer.blocks
    hooks = [
        blocks[0].register_forward_pre_hook(lambda _, args: given.append(args[0])),
        blocks[-1].register_forward_hook(lambda _, args, out: sizes.append((out - given[-1]).norm(dim=-1))),
    ]
    ratios = calibrate(backbone, [small(num_inference_steps=3, seed=3)])
    for hook in hooks:
        hook.remove()
    wanted = [1.0, *(float((b / a).mean()) for a, b in pairwise(sizes))]
    assert ratios == pytest.approx(wanted, abs=1e-4)
