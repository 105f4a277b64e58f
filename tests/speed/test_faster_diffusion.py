"""Which steps run the encoder, that its features lose nothing where they do not change, and what the batch makes."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import State
from kinema.core.technique import Step
from kinema.guidance.cfg import CFG
from kinema.guidance.frame_cfg import FrameCFG
from kinema.guidance.pag import PAG
from kinema.long.freenoise import FreeNoise
from kinema.request import Request
from kinema.speed.faster_diffusion import BlockCache, FasterDiffusion

STEPS = 6
LEVELS = {}  # noise levels of the steps on a model
FEW = dict(key_steps=(0, 1, 3), of=STEPS, injection=0.0)
GUIDES = {"animatediff": CFG(scale=4.0), "animatediff, euler": CFG(scale=4.0), "svd": FrameCFG(first=1.0, last=3.0)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """model(row): a tiny model, and a function that denoises on it."""
    made = {}

    def built(row="animatediff"):
        if row not in made:
            case, folder = cases()[row], tmp_path_factory.mktemp("model")
            asked = {**case.request, "num_inference_steps": STEPS}
            if case.images:
                Image.new("RGB", (64, 32), (200, 40, 30)).save(folder / "first.png")
                asked["image"] = folder / "first.png"
            backbone = load(case.build(folder / "model"), device="cpu", dtype="float32")
            request = Request(prompt="a red ball" if case.prompts else "", seed=3, **asked)
            LEVELS[backbone] = backbone.solver(backbone.prepare([request])).levels
            made[row] = backbone, lambda *parts: denoise(backbone, request, parts)[0]
        return made[row]

    return built


@pytest.fixture
def computed(model):
    """Rows of each call of a layer of the encoder and of one of the decoder."""
    unet, rows = model()[0].unet, {"encoder": [], "decoder": []}
    layers = {"encoder": unet.down_blocks[0].resnets[0].conv1, "decoder": unet.up_blocks[-1].resnets[0].conv1}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: rows[name].append(len(args[0])))
        for name, layer in layers.items()
    ]
    yield rows
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("row", GUIDES)
def test_key_steps_alone_change_no_bit(row, model):
    _, run = model(row)
    assert torch.equal(run(GUIDES[row], FasterDiffusion(every=1, injection=0.0)), run(GUIDES[row]))


@pytest.mark.parametrize("row", GUIDES)
def test_an_encoder_that_does_not_see_x_loses_nothing(row, model):
    backbone, run = model(row)
    unet = backbone.unet
    weights = [unet.conv_in.weight]
    for part in (*unet.down_blocks, unet.mid_block):
        weights += [m.weight for name, m in part.named_modules() if name.endswith("time_emb_proj")]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight.zero_()
    try:
        plain = run(GUIDES[row])
        assert torch.equal(run(GUIDES[row], FasterDiffusion(**FEW, parallel=False)), plain)
        torch.testing.assert_close(run(GUIDES[row], FasterDiffusion(**FEW)), plain, atol=1e-4, rtol=1e-4)
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)
    assert not torch.allclose(run(GUIDES[row]), plain, atol=1e-3)


@pytest.mark.parametrize("row", GUIDES)
def test_decoders_in_one_batch_give_what_they_give_one_by_one(row, model):
    _, run = model(row)
    one_by_one = run(GUIDES[row], FasterDiffusion(**FEW, parallel=False))
    torch.testing.assert_close(run(GUIDES[row], FasterDiffusion(**FEW)), one_by_one, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one_by_one, run(GUIDES[row]), atol=1e-3)


@pytest.mark.parametrize("parallel, decoded", [(True, [8, 16, 24]), (False, [8] * 6)])
def test_the_encoder_runs_in_key_steps(parallel, decoded, model, computed):
    model()[1](CFG(scale=4.0), FasterDiffusion(**FEW, parallel=parallel))
    assert computed == {"encoder": [8] * 3, "decoder": decoded}  # two branches of four frames


def test_branches_keep_features_of_their_own(model, computed, monkeypatch):
    backbone, run = model()
    together = run(CFG(scale=4.0), FasterDiffusion(**FEW))
    monkeypatch.setattr(backbone, "joint_branches", False)
    torch.testing.assert_close(run(CFG(scale=4.0), FasterDiffusion(**FEW)), together, atol=1e-4, rtol=1e-4)
    assert computed["encoder"] == [8] * 3 + [4] * 6


def test_what_looks_into_the_network_gets_its_steps_one_by_one(model, computed):
    model()[1](PAG(), FasterDiffusion(**FEW))
    assert computed["decoder"] == [4] * 18  # three branches


FAMILIES = ["wan 2.1 t2v", "cogvideox 5b", "hunyuan t2v", "hunyuan 1.5 t2v", "ltx 0.9.5 t2v", "ltx 2.0 t2v", "mochi"]


@pytest.mark.parametrize("row", FAMILIES)
def test_the_first_blocks_of_a_transformer_run_in_key_steps(row, model):
    backbone, run = model(row)
    first = {site.block: attention for site, attention in reversed(list(backbone.attentions()))}
    calls, kept = [], max(round(0.5 * len(first)), 1)
    hooks = [a.register_forward_pre_hook(lambda *_, i=i: calls.append(i)) for i, a in first.items()]
    made = run(FasterDiffusion(**FEW))
    for hook in hooks:
        hook.remove()
    assert [calls.count(i) for i in range(len(first))] == [3] * kept + [STEPS] * (len(first) - kept)
    assert made.isfinite().all() and not torch.allclose(made, run(), atol=1e-4)
    assert torch.equal(run(FasterDiffusion(every=1, injection=0.0)), run())


def test_what_the_first_blocks_add_is_kept():
    """Three blocks of which two are kept: y, z -> 2 y + step, 3 z."""
    call = SimpleNamespace(step=SimpleNamespace(index=0))
    cache, network = BlockCache(call, frozenset({0, 2}), 0.7), SimpleNamespace(blocks=[1], transformer_blocks=[2, 3])
    assert cache.parts(network) == [1, 2]

    def block(y, z, word):
        return 2 * y + call.step.index, 3 * z

    def through(y, z):
        for part in range(2):
            y, z = cache.around(part, block, y, z=z, word="")
        return float(y), float(z)

    assert through(torch.tensor(5.0), torch.tensor(1.0)) == (20, 9)  # added 15 and 8
    call.step.index = 1
    assert through(torch.tensor(7.0), torch.tensor(2.0)) == (22, 10)
    call.step.index = 2
    assert through(torch.tensor(1.0), torch.tensor(1.0)) == (10, 9)
    call.step.index = 3
    assert [float(u) for u in cache.around(0, block, torch.tensor(1.0), torch.tensor(1.0), "")] == [1, 1]
    assert cache.around(0, block, torch.zeros(2), torch.zeros(2), "")[0].tolist() == [3, 3]  # more tokens than before


def test_a_window_that_begins_late_begins_with_a_key_step(model, computed):
    backbone, run = model()
    run(FasterDiffusion(every=STEPS, noise_range=(0.6, 0.0)))
    inside = sum(level <= 0.6 for level in LEVELS[backbone][:-1])
    assert len(computed["encoder"]) == STEPS - inside + 1 < STEPS


def test_key_steps_are_stretched_to_the_number_of_steps():
    paper = FasterDiffusion()
    assert sorted(paper.keys(50)) == [0, 1, 2, 3, 5, 10, 15, 25, 35]
    assert sorted(paper.keys(20)) == [0, 1, 2, 4, 6, 10, 14]
    assert sorted(FasterDiffusion(every=4).keys(10)) == [0, 4, 8]


def test_the_first_noise_is_added_in_the_second_half():
    part, run = FasterDiffusion(injection=0.01), SimpleNamespace(state=State())
    noise, x = torch.randn(2, 1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    part.init_noise(run, noise)
    assert part.before_step(Step(4, 10, 0.6, 0.5, run=run), x) is x
    a, s = 0.6, 0.8  # z = a x0 + s noise, of which x is a (a + s)th
    moved = part.before_step(Step(5, 10, s / (a + s), 0.5, run=run), x)
    torch.testing.assert_close((a + s) * moved, (a + s) * x + 0.01 * noise)


def test_what_cannot_be_done_is_refused(model, tiny_wan):
    with pytest.raises(KinemaError, match="use steps from 0 to 49"):
        model()[1](FasterDiffusion(key_steps=(0, 50)))
    with pytest.raises(KinemaError, match="every -1"):
        model()[1](FasterDiffusion(every=-1))
    with pytest.raises(KinemaError, match="depth of faster_diffusion is 0"):
        model()[1](FasterDiffusion(depth=0))
    with pytest.raises(KinemaError, match="WanVACETransformer3DModel does not take it: it adds to what its blocks"):
        model("wan 2.1 vace")[1](FasterDiffusion())


def test_frames_that_were_moved_stand_there_on_a_twin_too(tmp_path):
    """Windows of FreeNoise carry places of their own; with all steps key steps nothing else may differ."""
    backbone = load(cases()["animatediff"].build(tmp_path), device="cpu", dtype="float32")
    request = Request(prompt="a ball", num_frames=12, height=32, width=32, num_inference_steps=2, seed=1, fps=8)
    alone, _ = denoise(backbone, request, [FreeNoise(window=4)])
    cached, _ = denoise(backbone, request, [FreeNoise(window=4), FasterDiffusion(every=1, injection=0.0)])
    assert torch.equal(alone, cached)
