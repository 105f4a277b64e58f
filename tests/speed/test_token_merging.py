"""What is merged, what it counts, and that frames that are equal lose nothing."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site, Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.positions import Positions
from kinema.core.run import State
from kinema.core.technique import Step, Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.speed.token_merging import Groups, TokenMerging, groups_of_frames

CELLS, WORDS = 6, 3


def plain():
    """Attention without positions, as every family has it, and how many queries and keys it was asked for."""
    asked = []

    def attend(q, k, v, positions, bias):
        asked.append((q.shape[2], k.shape[2]))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    return Attention.of(lambda q, k, positions: (q, k), attend), asked


def grid(frames):
    frame, cell = torch.arange(frames).repeat_interleave(CELLS), torch.arange(CELLS).repeat(frames)
    return torch.stack([frame, cell, cell], dim=1)


def attended(kind, q, k, v, frames, first=0, causal=True, positions=True, **taps):
    """The output of the technique at one site, the model's own, and the sizes that the model was asked for."""
    own = grid(frames)
    run = SimpleNamespace(state=State(), backbone=SimpleNamespace(frames_per_latent=4 if causal else 1))
    part = TokenMerging()
    run.state[part] = {}
    token = current_taps.set(Taps(Step(0, 1, 1.0, 0.0, run=run), (), own=own, frames=frames, whole=frames, **taps))
    places = Positions(own, own[:0] if kind == "cross" else own, first=first) if positions else None
    model, asked = plain()
    try:
        site = Site(0, kind, 2, 8)
        out = part.attend(Step(0, 1, 1.0, 0.0, run=run), site, q, k, v, places, model)
    finally:
        current_taps.reset(token)
    return out, model(q, k, v, places), asked[0]


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def in_pairs(frames, causal, *shape):
    """Values (..., frames, ...) at dim 2 in which the two frames of a pair are equal."""
    which = [0, *((i + 1) // 2 for i in range(1, frames))] if causal else [i // 2 for i in range(frames)]
    return random(*shape[:2], max(which) + 1, *shape[2:])[:, :, which]


@pytest.mark.parametrize("frames, causal, left", [(5, True, 3), (6, True, 4), (4, False, 2), (5, False, 3)])
def test_frames_that_are_equal_lose_nothing_in_self_attention(frames, causal, left):
    q, k, v = (in_pairs(frames, causal, 1, 2, CELLS, 8 + i)[..., i:].flatten(2, 3) for i in range(3))
    out, model, asked = attended("self", q, k, v, frames, causal=causal)
    torch.testing.assert_close(out, model)
    assert asked == (left * CELLS, left * CELLS)


@pytest.mark.parametrize("text_first", [True, False])
def test_text_stays_in_joint_attention(text_first):
    frames, made = 5, []
    for i in range(3):
        video, text = in_pairs(frames, True, 1, 2, CELLS, 8).flatten(2, 3) * (i + 1), random(1, 2, WORDS, 8) + i
        made.append(torch.cat([text, video] if text_first else [video, text], dim=2))
    out, model, asked = attended("joint", *made, frames, first=WORDS if text_first else 0)
    torch.testing.assert_close(out, model)
    assert asked == (3 * CELLS + WORDS, 3 * CELLS + WORDS)


def test_only_queries_are_merged_where_text_is_read():
    q = in_pairs(5, True, 1, 2, CELLS, 8).flatten(2, 3)
    out, model, asked = attended("cross", q, random(1, 2, WORDS, 8), random(1, 2, WORDS, 8), 5)
    torch.testing.assert_close(out, model)
    assert asked == (3 * CELLS, WORDS)


@pytest.mark.parametrize("kind", ["temporal", "spatial", "cross"])
@pytest.mark.parametrize("causal", [True, False])
def test_frames_of_unets_stand_in_the_batch_or_are_the_sequence(kind, causal):
    frames, batch = 6, 2
    tokens = {"temporal": (batch * CELLS, 2), "spatial": (batch, 2), "cross": (batch, 2)}[kind]
    q, k, v = (in_pairs(frames, causal, *tokens, *(() if kind == "temporal" else (CELLS,)), 8) + i for i in range(3))
    if kind == "cross":
        k, v = k[:, :, :1, :WORDS].expand(-1, -1, frames, -1, -1), v[:, :, :1, :WORDS].expand(-1, -1, frames, -1, -1)
    if kind != "temporal":  # (batch, N, frames, tokens, D) -> (batch frames, N, tokens, D)
        q, k, v = (u.transpose(1, 2).flatten(0, 1) for u in (q, k, v))
    out, model, _ = attended(kind, q, k, v, frames, causal=causal, positions=False)
    torch.testing.assert_close(out, model)


def test_frames_that_differ_get_the_output_of_their_mean():
    q, k, v = (random(1, 2, 3 * CELLS, 8) + i for i in range(3))
    out, _, _ = attended("self", q, k, v, 3)
    frames = out.unflatten(2, (3, CELLS))
    assert torch.equal(frames[:, :, 1], frames[:, :, 2]) and not torch.allclose(frames[:, :, 0], frames[:, :, 1])
    mean = [
        torch.cat([u[:, :, :CELLS], (u[:, :, CELLS : 2 * CELLS] + u[:, :, 2 * CELLS :]) / 2], dim=2) for u in (q, k, v)
    ]
    counts = torch.tensor([1.0, 2.0]).repeat_interleave(CELLS).log()
    wanted = torch.nn.functional.scaled_dot_product_attention(*mean, attn_mask=counts.expand(2 * CELLS, -1))
    torch.testing.assert_close(frames[:, :, :2].flatten(2, 3), wanted)


def test_merged_tokens_stand_at_their_mean_place():
    groups, places = Groups(CELLS, 2, 2, CELLS), grid(6).double()
    merged = groups.merged(places, 0).unflatten(0, (4, CELLS))
    assert merged[:, 0, 0].tolist() == [0, 1.5, 3.5, 5] and torch.equal(merged[1, :, 1:], places[:CELLS, 1:])
    assert groups.first_of_each(36, "cpu")[::CELLS].tolist() == [0, 6, 18, 30]


@pytest.mark.parametrize(
    "taps, first, runs",
    [
        (dict(frames=5), 1, 2),
        (dict(frames=6, before=2), 0, 3),  # a part of a clip that does not begin with the picture
        (dict(frames=5, padding=1), 2, 2),
        (dict(frames=8, patch=(2, 2, 2)), 1, 1),
        (dict(frames=2), 1, 0),
    ],
)
def test_which_frames_go_together(taps, first, runs):
    groups = groups_of_frames(Taps(None, (), **taps), 2, picture_first=True)
    assert (groups.first, groups.runs) == (first, runs)


@pytest.mark.parametrize(
    "fields, count, last",
    [({}, 30, 14), ({}, 7, 3), (dict(until=1.0), 4, 3), (dict(until=0.0), 9, 0), (dict(noise_range=(1.0, 0.9)), 30, 3)],
)
def test_it_merges_in_the_first_half_of_the_steps(fields, count, last):
    steps = [Step(i, count, 1 - i / count, 1 - (i + 1) / count) for i in range(count)]
    assert [step.index for step in steps if TokenMerging(**fields).active(step)] == list(range(last + 1))


@dataclass(frozen=True, kw_only=True)
class Sizes(Technique):
    """Notes how many tokens every attention is asked for."""

    notes: set

    def wants(self, site):
        return True

    def attend(self, step, site, q, k, v, positions, next):
        self.notes.add((site.kind, len(q), q.shape[2], k.shape[2]))
        return next(q, k, v, positions)


ROWS = ["wan 2.1 t2v", "cogvideox 5b", "hunyuan t2v", "ltx 0.9.5 t2v", "mochi", "animatediff, alone", "svd, alone"]


@pytest.mark.parametrize("row", ROWS)
def test_every_family_merges(row, tmp_path):
    from PIL import Image

    case = cases()[row]
    backbone = load(case.build(tmp_path / "model"), device="cpu", dtype="float32")
    frames = 1 + 4 * backbone.frames_per_latent if backbone.frames_per_latent > 1 else 4
    asked = {**case.request, "num_inference_steps": 2, "num_frames": frames}
    if case.images:
        Image.new("RGB", (64, 32), (200, 40, 30)).save(tmp_path / "first.png")
        asked["image"] = tmp_path / "first.png"
    request = Request(prompt="a red ball" if case.prompts else "", seed=3, **asked)
    notes = {name: set() for name in ("merged", "plain")}
    merged = denoise(backbone, request, [TokenMerging(until=1.0), Sizes(notes=notes["merged"])])[0]
    model = denoise(backbone, request, [Sizes(notes=notes["plain"])])[0]
    assert merged.isfinite().all() and not torch.equal(merged, model)
    fewer = {(kind, rows * tokens) for kind, rows, tokens, _ in notes["merged"]}
    all_of_them = {(kind, rows * tokens) for kind, rows, tokens, _ in notes["plain"]}
    single = {kind for kind, _, _, keys in notes["plain"] if keys == 1}
    for kind in {kind for kind, _ in all_of_them} - single:
        assert max(n for k, n in fewer if k == kind) < max(n for k, n in all_of_them if k == kind), kind


def test_branches_stay_one_batch(tiny_wan):
    backbone, rows = load(tiny_wan, device="cpu", dtype="float32"), []
    backbone.transformer.blocks[0].attn1.to_q.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    request = Request(prompt="a red ball", num_inference_steps=2, num_frames=13, height=32, width=32, seed=3)
    together = denoise(backbone, request, [CFG(scale=3.0), TokenMerging()])[0]
    assert rows == [2, 2]
    backbone.joint_branches = False
    apart = denoise(backbone, request, [CFG(scale=3.0), TokenMerging()])[0]
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_what_cannot_be_done_is_refused(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    request = Request(prompt="a red ball", num_inference_steps=2, num_frames=5, height=32, width=32, seed=3)
    with pytest.raises(KinemaError, match="this clip has 1 that may be merged"):
        denoise(backbone, request, [TokenMerging()])
    for bad, says in (
        (TokenMerging(size=0), "size of token_merging is 0"),
        (TokenMerging(until=1.5), "until of token"),
    ):
        with pytest.raises(KinemaError, match=says):
            denoise(backbone, request, [bad])
