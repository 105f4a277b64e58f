"""The contract of single calls of the networks: what goes in and comes out, what stands beside, what is left out."""

from dataclasses import dataclass, field

import pytest
import torch

from backbones.test_families import CASES, child, request, run, tokens
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.technique import Technique
from kinema.core.tokens import Tokens

ROWS = [  # every family, and what is special in it
    "wan 2.1 t2v",
    "wan 2.1 vace",
    "wan 2.2 ti2v, image",
    "skyreels v2, a time per frame",
    "cogvideox 5b",
    "cogvideox 1.5 i2v",
    "ltx 0.9.0 t2v",
    "ltx 0.9.7 i2v",
    "ltx 2.0 t2v",
    "hunyuan t2v",
    "hunyuan i2v, latents beside",
    "hunyuan 1.5 t2v",
    "mochi",
    "animatediff",
    "svd",
]
LAYOUTS = {  # of latents (B, C, T, H, W) as a network gets them
    "cogvideox": lambda x: x.transpose(1, 2),
    "svd": lambda x: x.transpose(1, 2),
    "ltx": lambda x: x.flatten(2).transpose(1, 2),
    "ltx2": lambda x: x.flatten(2).transpose(1, 2),
}


def perfect(scheduler, t, x0, noise):
    """What a network is handed at level t, and what a perfect one gives: as its scheduler defines it."""
    if scheduler.config.get("prediction_type", "flow_prediction") == "flow_prediction":
        return (1 - t) * x0 + t * noise, (x0 - noise) if scheduler.config.get("invert_sigmas") else noise - x0
    a, s = (1 - t) / ((1 - t) ** 2 + t**2) ** 0.5, t / ((1 - t) ** 2 + t**2) ** 0.5
    outputs = {"epsilon": noise, "sample": x0, "v_prediction": a * noise - s * x0}
    return a * x0 + s * noise, outputs[scheduler.config.prediction_type]


@pytest.mark.parametrize("name", ROWS)
def test_latents_and_velocity_go_through_the_network_and_back(name, folders, pictures):
    backbone = load(folders(name), device="cpu", dtype="float32")
    conditions = backbone.prepare([request(CASES[name], pictures)])
    x0, noise = torch.randn(2, *conditions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = backbone.clock.levels[700] if hasattr(backbone, "clock") else 0.9501
    layout = LAYOUTS.get(backbone.family, lambda x: x)
    handed, given = (layout(u).float() for u in perfect(backbone.scheduler, t, x0, noise))
    seen = []

    def oracle(network, args, named, output):
        seen.append(args[0] if args else named["hidden_states"])
        return (given, *output[1:])

    hook = (getattr(backbone, "unet", None) or backbone.transformer).register_forward_hook(oracle, with_kwargs=True)
    x = (1 - t) * x0 + t * noise
    v = backbone.velocity(x if hasattr(backbone, "clock") else x.float(), t, conditions)
    hook.remove()
    torch.testing.assert_close(v.double(), noise - x0, atol=1e-5, rtol=1e-5)
    part = tuple(slice(n) for n in handed.shape)  # behind the channels of the latents may be those of a picture
    torch.testing.assert_close(seen[0][part], handed, atol=1e-5, rtol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Beside(Technique):
    """Some latent frames of noise beside the clip."""

    name = "beside"
    frames: int = 2
    t: float | None = None
    places: torch.Tensor | None = None
    nudge: tuple[int, int, int] | None = None  # a cell that is moved a little

    def tokens(self, step):
        _, *one = step.run.conditions.shape
        x = torch.randn(1, one[0], self.frames, *one[2:], generator=torch.Generator().manual_seed(5))
        if self.nudge is not None:
            x[(0, slice(None), *self.nudge)] += 1
        return Tokens(x=x, t=self.t, places=self.places)


@dataclass(frozen=True, kw_only=True)
class Looks(Technique):
    seen: list = field(default_factory=list)

    def attend(self, step, site, q, k, v, positions, next):
        self.seen.append(positions)
        return next(q, k, v, positions)


@dataclass(frozen=True, kw_only=True)
class Ignores(Technique):
    """Attention as if nothing stood beside the clip: the weight of those keys is measured, and taken out."""

    def attend(self, step, site, q, k, v, positions, next):
        last = positions.first + len(positions.k)
        beside, mark = slice(last - positions.extra, last), torch.zeros_like(v)
        mark[:, :, beside] = 1
        return next(q, k, v * (1 - mark), positions) / (1 - next(q, k, mark, positions))


@pytest.mark.parametrize("name", ROWS)
def test_what_stands_beside_the_clip(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")

    def made(*parts):
        return run(backbone, case, pictures, *parts, num_inference_steps=2)[0]

    if "tokens" not in backbone.hooks:
        with pytest.raises(KinemaError, match="beside needs the hook 'tokens'"):
            made(Beside())
        return
    plain, look = made(), Looks()
    assert torch.equal(made(Beside(frames=0)), plain)
    places = torch.tensor([[-3.5, 0.25, 7.0], [-1.5, 0.25, 7.0]])
    moved = made(Beside(places=places), look)
    assert moved.shape == plain.shape and (moved - plain).abs().max() > 1e-4
    torch.testing.assert_close(made(Beside(places=places), Ignores()), plain, atol=1e-5, rtol=1e-4)

    grid, beside = backbone.grid(plain.shape), backbone.grid((1, 1, 2, *plain.shape[3:]))
    frame = beside[:, 0].long()
    asked = places[frame] + (beside - beside * torch.tensor([1, 0, 0])).float()
    for positions in look.seen:
        assert positions.extra == len(beside) and torch.equal(positions.q, positions.k)
        assert torch.equal(positions.q[: -len(beside)], grid.to(positions.q))
        torch.testing.assert_close(positions.q[-len(beside) :].float(), asked)

    behind = torch.tensor([[plain.shape[2] + j, 0.0, 0.0] for j in range(2)])
    left = made(Beside())
    torch.testing.assert_close(made(Beside(places=behind)), left, atol=1e-5, rtol=1e-4)
    assert (left - moved).abs().max() > 1e-5
    seen = []
    hook = child(backbone, case.embedding).register_forward_hook(lambda module, args, out: seen.append(out))
    for nudge in (None, (1, 1, 2)):
        made(Beside(nudge=nudge))
    hook.remove()
    whole = backbone.grid((1, 1, plain.shape[2] + 2, *plain.shape[3:]))
    first, second = (tokens(out, len(whole)) for out in (seen[0], seen[len(seen) // 2]))
    changed = (first - second).abs().amax(-1).nonzero().flatten().tolist()
    cell = [n // p * p for n, p in zip((plain.shape[2] + 1, 1, 2), backbone.patch, strict=True)]
    assert [whole[i].tolist() for i in changed] == [cell]

    if backbone.time_per_frame:
        assert (made(Beside(t=0.0)) - left).abs().max() > 1e-5
    else:
        with pytest.raises(KinemaError, match="has one noise level for the whole call; leave t of tokens"):
            made(Beside(t=0.0))


@pytest.mark.parametrize(
    "tokens, says",
    [
        (Tokens(x=torch.zeros(1, 16, 2, 4, 4)), r"are \(1, 16, 2, 4, 4\); model .* takes \(1, 16, frames, 4, 8\)"),
        (Tokens(x=torch.zeros(1, 16, 2, 4, 8), places=torch.zeros(1, 3)), r"places of .* use \(2, 3\)"),
        (Tokens(x=torch.zeros(1, 16, 2, 4, 8), t=1.5), "at noise level 1.5; use 0 to 1"),
        (Tokens(x=torch.zeros(1, 16, 60, 4, 8)), "are 63 latent frames; this model has places for 32"),
    ],
)
def test_refuses_what_cannot_stand_there_before_the_first_step(folders, pictures, tokens, says):
    @dataclass(frozen=True, kw_only=True)
    class Puts(Technique):
        name = "puts"

        def tokens(self, step):
            return tokens

    backbone = load(folders("wan 2.1 t2v"), device="cpu", dtype="float32")
    backbone.velocities = None  # no call is made
    with pytest.raises(KinemaError, match=says):
        run(backbone, CASES["wan 2.1 t2v"], pictures, Puts())


@dataclass(frozen=True, kw_only=True)
class Skips(Technique):
    name = "skips"
    block: int = 1

    def skip(self, step, block):
        return block == self.block


@pytest.mark.parametrize("name", ROWS)
def test_a_block_left_out_is_what_diffusers_leaves_out(name, folders, pictures):
    from diffusers.hooks import HookRegistry
    from diffusers.hooks._helpers import TransformerBlockRegistry
    from diffusers.hooks.layer_skip import TransformerBlockSkipHook

    case, known = CASES[name], TransformerBlockRegistry._registry
    TransformerBlockRegistry._register()
    backbone = load(folders(name), device="cpu", dtype="float32")
    more = dict(num_inference_steps=2)
    if "skip" not in backbone.hooks:
        with pytest.raises(KinemaError, match="skips needs the hook 'skip'"):
            run(backbone, case, pictures, Skips(), **more)
        return
    plain, _ = run(backbone, case, pictures, **more)
    without, _ = run(backbone, case, pictures, Skips(), **more)
    assert (without - plain).abs().max() > 1e-4
    assert torch.equal(run(backbone, case, pictures, Skips(block=99), **more)[0], plain)
    assert not any("forward" in vars(block) for _, block in backbone.blocks())
    for index, block in backbone.blocks():
        if index == 1 and type(block) in known:
            HookRegistry.check_if_exists_or_initialize(block).register_hook(TransformerBlockSkipHook(1.0), "skip")
    if type(dict(backbone.blocks())[1]) in known:
        assert torch.equal(run(backbone, case, pictures, **more)[0], without)


def test_what_one_run_leaves_out_or_puts_beside_no_other_sees(folders, pictures):
    from concurrent.futures import ThreadPoolExecutor

    case, parts = CASES["wan 2.1 t2v"], ((), (Skips(),), (Beside(),), (), (Skips(), Beside()))
    backbone = load(folders("wan 2.1 t2v"), device="cpu", dtype="float32")
    alone = [run(backbone, case, pictures, *part)[0] for part in parts]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(run, backbone, case, pictures, *part) for part in parts]
        assert all(torch.equal(job.result()[0], x) for job, x in zip(jobs, alone, strict=True))
