"""The contract of the video families: every row equals diffusers' own pipeline, and every hook is what it says."""

import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.families import cases, networks
from kinema.backbones.load import load
from kinema.core.attention import Positions
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import HOOKS, Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request

CASES = cases()
NETWORKS = networks()
PROMPT, NEGATIVE, SEED = "a red ball rolls left &amp; jumps", "a blue cube", 11
TOLERANCE = 1e-4  # largest absolute difference of latents (unit variance)


def request(case, pictures, **more):
    images = dict(zip(("image", "last_image"), pictures[: case.images], strict=False))
    words = dict(prompt=PROMPT, negative_prompt=NEGATIVE) if case.prompts else {}
    return Request(**{**words, "seed": SEED, **case.request, **images, **more})


def guidance(case):
    if case.guides:
        return list(case.guides)
    return [CFG(scale=case.scale, low_noise_scale=case.low_scale)] if case.scale != 1 else []


def run(backbone, case, pictures, *techniques, **more):
    """Latents and frames of a sample."""
    seen = []
    frames = sample(backbone, request(case, pictures, **more), techniques, on_step=lambda step, x: seen.append(x))
    return seen[-1], frames[0].numpy()


def theirs(folder, case, pictures, dtype=torch.float32):
    """Latents and frames (T, H, W, 3) in 0..255 of diffusers' pipeline."""
    import diffusers

    pipeline = getattr(diffusers, case.pipeline).from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    case.mend(pipeline)
    images = [Image.open(path) for path in pictures[: case.images]]

    def made(**more):
        return pipeline(
            **dict(zip(("image", "last_image"), images, strict=False)),
            **{**(dict(prompt=PROMPT, negative_prompt=NEGATIVE) if case.prompts else {}), **case.call, **case.guidance},
            generator=torch.Generator().manual_seed(SEED),
            **more,
        ).frames

    latents = {}
    if "callback_on_step_end" in inspect.signature(type(pipeline).__call__).parameters:
        frames = made(output_type="np", callback_on_step_end=lambda pipe, step, t, found: latents.update(found) or {})
    else:
        latents["latents"], frames = made(output_type="latent"), made(output_type="np")
    return latents["latents"], np.round(frames[0] * 255)


@pytest.mark.parametrize("name", CASES)
def test_same_as_diffusers(name, folders, pictures):
    case = CASES[name]
    their_latents, their_frames = theirs(folders(name), case, pictures)
    backbone = load(folders(name), device="cpu", dtype="float32")
    for joint in (False, True):
        backbone.joint_branches = joint
        latents, frames = run(backbone, case, pictures, *guidance(case))
        off = (latents - case.to_latents(their_latents, latents)).abs().max().item()
        off_frames = np.abs(frames - their_frames).max()  # uint8 steps
        print(f"{name}, joint branches {joint}: latents {off:.1e}, frames {off_frames:g}")
        assert off <= (0 if case.bitwise and not joint else TOLERANCE)
        # A value that rounds to the other side at 0.5 may differ by one step; otherwise frames are equal.
        assert off_frames <= 1 and np.mean(frames != their_frames) < 1e-3


OF_EACH = [  # a network of each family
    "wan 2.1 t2v", "skyreels v2", "cogvideox 5b", "ltx 0.9.0 t2v", "ltx 2.0 t2v", "hunyuan t2v", "hunyuan 1.5 t2v",
    "mochi", "animatediff", "svd",
]  # fmt: skip


@pytest.mark.parametrize("name", OF_EACH)
def test_as_near_to_diffusers_in_bfloat16_as_its_rounding(name, folders, pictures):
    case = CASES[name]
    their_latents, _ = theirs(folders(name), case, pictures, torch.bfloat16)
    latents, _ = run(load(folders(name), device="cpu", dtype="bfloat16"), case, pictures, *guidance(case))
    off = latents.float() - case.to_latents(their_latents, latents).float()
    print(f"{name}: {off.norm() / latents.float().norm():.1e}")
    assert off.norm() <= 0.06 * latents.float().norm()


def child(backbone, path):
    for name in path.split("."):
        backbone = getattr(backbone, name)
    return backbone


@pytest.mark.parametrize("name", [name for name in NETWORKS if CASES[name].embedding])
def test_a_token_carries_the_cell_the_grid_names(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    conditions = backbone.prepare([request(case, pictures)])
    grid = backbone.grid(conditions.shape)
    rows = {tuple(place): i for i, place in enumerate(grid.tolist())}
    assert len(rows) == len(grid)
    seen = []
    hook = child(backbone, case.embedding).register_forward_hook(lambda m, args, out: seen.append(out))
    x = torch.randn(conditions.shape, generator=torch.Generator().manual_seed(0))
    for cell in ((0, 0, 0), tuple(n - 1 for n in x.shape[2:]), tuple(n // 2 for n in x.shape[2:])):
        other = x.clone()
        other[(0, slice(None), *cell)] += 1.0
        seen.clear()
        with torch.no_grad():
            backbone.velocity(x, 0.95, conditions)
            backbone.velocity(other, 0.95, conditions)
        before, after = (tokens(out, len(grid)) for out in seen[:2])
        changed = (before - after).abs().amax(-1).nonzero().flatten().tolist()
        expected = tuple(c // p * p for c, p in zip(cell, backbone.patch, strict=True))
        assert changed == [rows[expected]]
    hook.remove()


def tokens(embedded, count):
    """Tokens (L, D) of the first sample, whatever the shape they are made in: (B, L, D) or (B, D, T, H, W)."""
    embedded = embedded[0] if isinstance(embedded, tuple) else embedded
    flat = embedded[0].flatten(1).T if embedded.ndim == 5 else embedded[0]
    return flat[-count:]


@dataclass(frozen=True, kw_only=True)
class Looks(Technique):
    """Passes everything on, and notes what it saw."""

    name = "looks"
    seen: list = field(default_factory=list)

    def wants(self, site):
        return True

    def attend(self, step, site, q, k, v, positions, next):
        self.seen.append((site, tuple(q.shape), tuple(k.shape), positions))
        return next(q, k, v, positions)


@pytest.mark.parametrize("name", NETWORKS)
def test_looking_changes_no_bit_and_leaves_nothing(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    modules = [attn for _, attn in backbone.attentions()]
    before = [attn.processor for attn in modules]
    plain, _ = run(backbone, case, pictures)
    look = Looks()
    seen, _ = run(backbone, case, pictures, look)
    assert torch.equal(seen, plain)
    assert all(attn.processor is processor for attn, processor in zip(modules, before, strict=True))
    assert {site for site, *_ in look.seen} == set(backbone.sites)
    for site, q, k, _ in look.seen:
        assert q[1] == site.heads and q[3] == k[3] == site.head_dim
    again, _ = run(backbone, case, pictures)
    assert torch.equal(again, plain)


@dataclass(frozen=True, kw_only=True)
class Scales(Technique):
    """Attention whose values are doubled, in blocks of one kind."""

    name = "scales"

    def wants(self, site):
        return True

    def attend(self, step, site, q, k, v, positions, next):
        return 2 * next(q, k, 0.5 * v, positions)


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_is_linear_in_its_values(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    plain, _ = run(backbone, case, pictures)
    scaled, _ = run(backbone, case, pictures, Scales())
    torch.testing.assert_close(scaled, plain, atol=1e-5, rtol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Moves(Technique):
    name = "moves"
    by: float = 0.0
    keys: bool = True  # move the keys along with the queries

    def wants(self, site):
        return site.kind in ("self", "joint", "temporal")

    def positions(self, step, site, positions):
        offset = torch.full((3,), self.by)
        return Positions(positions.q + offset, positions.k + offset * self.keys, positions.first)


@pytest.mark.parametrize("name", NETWORKS)
def test_moving_all_positions_changes_nothing_and_moving_some_does(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    if not case.moves:
        with pytest.raises(KinemaError, match="moves needs the hook 'positions'"):
            run(backbone, case, pictures, Moves(by=case.shift))
        return
    plain, _ = run(backbone, case, pictures)
    together, _ = run(backbone, case, pictures, Moves(by=case.shift))
    torch.testing.assert_close(together, plain, atol=2e-4, rtol=1e-3)
    apart, _ = run(backbone, case, pictures, Moves(by=case.shift or 2.0, keys=False))
    assert (apart - plain).abs().max() > 1e-3


@dataclass(frozen=True, kw_only=True)
class TwoTexts(Technique):
    """The first half of the latent frames reads one prompt, the rest another."""

    name = "two_texts"
    prompts: tuple[str, str] | None = None  # None is the request's own twice

    def start(self, run):
        run.read_texts(self.prompts or (run.requests[0].prompt, run.requests[0].prompt))

    def context(self, step, site, frames):
        assert frames == 1 + (step.run.requests[0].num_frames - 1) // step.run.backbone.frames_per_latent  # the clip's
        first = torch.arange(frames) < frames // 2
        return torch.stack([first, ~first])


@pytest.mark.parametrize("name", NETWORKS)
def test_each_frame_reads_its_own_text(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    if "context" not in backbone.hooks:
        with pytest.raises(KinemaError, match="two_texts needs the hook 'context'"):
            run(backbone, case, pictures, TwoTexts())
        return
    plain, _ = run(backbone, case, pictures, *guidance(case))
    same, _ = run(backbone, case, pictures, *guidance(case), TwoTexts())
    torch.testing.assert_close(same, plain, atol=1e-4, rtol=1e-4)
    other, _ = run(backbone, case, pictures, *guidance(case), TwoTexts(prompts=(PROMPT, "a cube jumps right")))
    assert (other - plain).abs().max() > 1e-3
    first = TwoTexts(prompts=("a cube jumps right", PROMPT), block_range=(0, 0))
    assert (run(backbone, case, pictures, first)[0] - run(backbone, case, pictures)[0]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["hunyuan t2v", "hunyuan 1.5 t2v", "mochi", "cogvideox 5b", "animatediff"])
def test_frames_of_a_batch_read_as_those_of_its_requests(name, folders, pictures):
    case, seen = CASES[name], []
    backbone = load(folders(name), device="cpu", dtype="float32")
    texts = TwoTexts(prompts=("a cube jumps right", "the ring"), block_range=(0, 0))
    words = ("a red ball rolls left on the blue cube", "a")
    requests = [request(case, pictures, prompt=p, seed=s, num_inference_steps=2) for s, p in enumerate(words)]
    for asked in (requests, *requests):
        sample(backbone, asked, [texts], on_step=lambda step, x: seen.append(x))
    torch.testing.assert_close(seen[1], torch.cat([seen[3], seen[5]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_its_requests_one_by_one(name, folders, pictures):
    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    words = [dict(prompt=PROMPT), dict(prompt="a cube", negative_prompt="")] if case.prompts else [{}, {}]
    images = [pictures[: case.images], pictures[::-1][: case.images]]
    requests = [
        request(case, given, seed=seed, **{**said, "num_inference_steps": 2})
        for seed, (said, given) in enumerate(zip(words, images, strict=True))
    ]
    seen = []
    frames = sample(backbone, requests, guidance(case), on_step=lambda step, x: seen.append(x))
    assert (seen[-1][0] - seen[-1][1]).abs().max() > 1e-2
    for i, one in enumerate(requests):
        alone = sample(backbone, one, guidance(case), on_step=lambda step, x: seen.append(x))
        torch.testing.assert_close(seen[-1][0], seen[1][i], atol=1e-3, rtol=1e-3)  # rounding grows over the steps
        assert (alone[0].int() - frames[i].int()).abs().max() <= 1


@pytest.mark.parametrize("name", OF_EACH)
def test_two_runs_in_two_threads_do_not_see_each_other(name, folders, pictures):
    from concurrent.futures import ThreadPoolExecutor

    case = CASES[name]
    backbone = load(folders(name), device="cpu", dtype="float32")
    alone, look = Looks(), Looks()
    plain, _ = run(backbone, case, pictures, alone)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(run, backbone, case, pictures, *parts) for parts in ((), (look,), (Scales(),), ())]
        found = [job.result()[0] for job in jobs]
    assert torch.equal(found[0], plain) and torch.equal(found[1], plain) and torch.equal(found[3], plain)
    torch.testing.assert_close(found[2], plain, atol=1e-5, rtol=1e-5)
    assert [site_q_k[:3] for site_q_k in look.seen] == [site_q_k[:3] for site_q_k in alone.seen] != []


ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- families: begin -->\n", "<!-- families: end -->"


def table(folders):
    """A row for each pipeline: its family, its variants, what it is tested against, and the hooks it refuses."""
    rows = {}
    for name, case in CASES.items():
        backbone = load(folders(name), device="cpu", dtype="float32")
        row = rows.setdefault((backbone.family, case.pipeline), {"names": [], "refused": set(), "bits": set()})
        row["names"].append(name)
        row["bits"].add((case.bitwise, case.scale != 1 or bool(case.guides)))
        row["refused"] |= {f"{hook} ({name})" for hook in HOOKS if hook not in backbone.hooks}
    lines = ["| family | diffusers pipeline | tested variants | equal to it | hooks refused |", "|---|---|---|---|---|"]
    for (family, pipeline), row in sorted(rows.items()):
        hooks = {hook: [n for n in row["names"] if f"{hook} ({n})" in row["refused"]] for hook in HOOKS}
        refused = [
            f"`{hook}`" + ("" if len(names) == len(row["names"]) else f" by {', '.join(names)}")
            for hook, names in hooks.items()
            if names
        ]
        equal = "bit for bit" if all(bitwise for bitwise, _ in row["bits"]) else "within 1e-4"
        if row["bits"] >= {(True, False), (False, True)} and (False, False) not in row["bits"]:
            equal = "bit for bit without guidance, within 1e-4 with it"
        names = "; ".join(row["names"])
        lines.append(f"| {family} | `{pipeline}` | {names} | {equal} | {', '.join(refused) or 'none'} |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_the_families(folders):
    page = ROOT / "docs" / "backbones.md"
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    written, tail = rest.split(END)
    found = table(folders)
    if os.environ.get("KINEMA_WRITE_DOCS"):
        page.write_text(head + BEGIN + found + END + tail, encoding="utf-8")
    else:
        assert written == found, "run the tests once with KINEMA_WRITE_DOCS=1 to write the table anew"
