"""The motion of a reference clip, by its attention flow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.core.technique import Technique
from kinema.events.vstar import VSTAR
from kinema.guidance.cfg import CFG
from kinema.layers.reading import read_attention
from kinema.long.gen_l_video import GenLVideo
from kinema.motion.ditflow import DiTFlow
from kinema.motion.ditflow_positions import DiTFlowPositions
from kinema.quality.video_msg import VideoMSG
from kinema.recipe import hash_inputs
from kinema.request import Part, Request
from kinema.speed.linear_leap import LinearLeap
from kinema.video import Video

SIZE = dict(num_frames=9, height=64, width=64, num_inference_steps=6, seed=1)
ASKED = Request(prompt="a red ball rolls left", **SIZE)
FAMILIES = ("wan", "cogvideox 5b")
BOTH = (DiTFlow, DiTFlowPositions)
STILL = dict(inject=False, noise_range=(1.0, 0.95))


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request, tiny_wan, tmp_path_factory):
    folder = tiny_wan if request.param == "wan" else cases()[request.param].build(tmp_path_factory.mktemp("model"))
    return load(folder, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A bright square that walks over noise, as a folder of pictures."""
    frames = np.random.default_rng(0).integers(0, 120, (9, 64, 64, 3)).astype(np.uint8)
    for i, frame in enumerate(frames):
        frame[20:40, 4 * i : 4 * i + 20] = 250
    path = tmp_path_factory.mktemp("reference") / "frames"
    Video(frames).save(path)
    return str(path)


def made(backbone, *parts, request=ASKED):
    return denoise(backbone, request, parts)[0]


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_optimised_brings_attention_closer_to_the_reference(backbone, clip, kind, monkeypatch):
    errors = []
    error = kind.error
    monkeypatch.setattr(kind, "error", lambda *args: errors.append(error(*args)) or errors[-1])
    part = kind(reference=clip, lr=(0.02, 0.01), **STILL)
    assert not torch.equal(made(backbone, part), made(backbone))
    first = [e.item() for e in errors[: part.iterations]]
    assert first[-1] < first[0] and all(e.grad_fn is not None for e in errors)
    assert all(p.grad is None for p in backbone.transformer.parameters())


@pytest.mark.parametrize("kind", BOTH)
def test_a_reference_in_which_nothing_moves_changes_nothing(backbone, clip, kind, monkeypatch):
    """With the flow of a still clip, zero everywhere; what attention finds again in noise moves by chance."""
    plain, part = made(backbone, replace(kind(), iterations=0, inject=False)), kind(reference=clip, **STILL)
    flow = kind._flow
    monkeypatch.setattr(kind, "_flow", lambda *args, hard=False, **how: (1 - hard) * flow(*args, hard=hard, **how))
    torch.testing.assert_close(made(backbone, part), plain, rtol=0, atol=1e-5)


def test_the_first_block_reads_keys_and_values_of_the_noised_reference(backbone, clip):
    """Those that the model itself makes of (1 - t) reference + t noise, in every branch of the guidance."""

    class Watch(Technique):
        def attend(self, step, site, q, k, v, positions, next):
            seen.append((site.block, step.t, k, v))
            return next(q, k, v, positions)

    part, seen = DiTFlow(reference=clip, iterations=0, noise_range=(1.0, 0.9)), []
    made(backbone, part, CFG(scale=3.0), Watch())
    with torch.no_grad(), Run.open(backbone, ASKED, [part]) as run:
        z, noise = run.state[part].latents.double(), run.noise()
        for step in run.schedule[:2]:
            (own,) = read_attention(run, step, (1 - step.t) * z + step.t * noise, [0])
            mine = [entry for entry in seen if entry[:2] == (0, step.t)]
            assert len(mine) == 2, "both branches of the guidance"
            for _, _, k, v in mine:
                torch.testing.assert_close(k[:, :, own.clip], own.k[:, :, own.clip], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(v[:, :, own.clip], own.v[:, :, own.clip], atol=1e-4, rtol=1e-4)


def test_the_models_own_table_is_the_model(backbone, clip, monkeypatch):
    """Tables that nobody changed stand in every block for what the model does itself."""
    monkeypatch.setattr(DiTFlowPositions, "optimised", lambda self, step, begin, error: begin)
    with_own = made(backbone, DiTFlowPositions(reference=clip, **STILL), CFG(scale=3.0))
    torch.testing.assert_close(with_own, made(backbone, CFG(scale=3.0)), rtol=0, atol=2e-4)
    # What looks at attention behind it still knows which token is where.
    behind = VSTAR(scale=3.0)
    seen = made(backbone, DiTFlowPositions(reference=clip, **STILL), behind)
    torch.testing.assert_close(seen, made(backbone, behind), rtol=0, atol=2e-4)
    assert (seen - made(backbone)).abs().max() > 1e-3


def test_saved_tables_make_the_same_video_without_gradients(backbone, clip, tmp_path, monkeypatch):
    file = str(tmp_path / "tables.safetensors")
    two = dict(STILL, noise_range=(1.0, 0.8), iterations=1)
    first = made(backbone, DiTFlowPositions(reference=clip, save=file, **two))
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert torch.equal(made(backbone, DiTFlowPositions(tables=file, **two)), first)
    other = ASKED.changed(prompt="a green cube")
    assert not torch.equal(made(backbone, DiTFlowPositions(tables=file, **two), request=other), first)
    options = {"tables": file, "reference": clip}
    found = hash_inputs(ASKED.changed(techniques=[Part(name="ditflow_positions", options=options)]))
    assert sorted(found) == ["reference of ditflow_positions", "tables of ditflow_positions"]
    for changes, words in [
        (dict(num_frames=17), r"is for grid"),
        (dict(height=32), r"is for grid"),
        (dict(num_inference_steps=7), r"is for num_inference_steps 6, and this run has 7"),
    ]:
        with pytest.raises(KinemaError, match=words):
            made(backbone, DiTFlowPositions(tables=file, **two), request=ASKED.changed(**changes))
    with pytest.raises(KinemaError, match="is for noise levels"):
        made(backbone, DiTFlowPositions(tables=file, **{**two, "noise_range": (1.0, 0.4)}))


@pytest.mark.parametrize("kind", BOTH)
def test_nothing_is_looked_at_behind_a_leap(backbone, clip, kind, tmp_path, monkeypatch):
    asked, flow, file = [], kind._flow, str(tmp_path / "tables.safetensors")
    monkeypatch.setattr(kind, "_flow", lambda self, step, *args, **how: (
        asked.append(step.index) or flow(self, step, *args, **how)
    ))  # fmt: skip
    wide = dict(reference=clip, noise_range=(1.0, 0.0), iterations=1)
    save = {"save": file} if kind is DiTFlowPositions else {}
    leapt = made(backbone, kind(**wide, **save), LinearLeap(at=0.3))
    assert set(asked) == {0, 1, 2}, "the leap is in step 2 of 6"
    if save:  # a table for every guided step all the same
        again = DiTFlowPositions(tables=file, inject=True, **{**wide, "reference": clip})
        assert torch.equal(made(backbone, again, LinearLeap(at=0.3)), leapt)


def test_the_first_steps_of_a_sketch_are_not_optimised(backbone, clip, monkeypatch):
    asked, flow = [], DiTFlow._flow
    monkeypatch.setattr(DiTFlow, "_flow", lambda self, step, *args, **how: (
        asked.append(step.t) or flow(self, step, *args, **how)
    ))  # fmt: skip
    part = DiTFlow(reference=clip, noise_range=(1.0, 0.0), iterations=1)
    made(backbone, part, VideoMSG(sketch=clip, level=0.8))
    assert asked and max(asked) <= 0.8


def test_the_error_of_a_batch_is_the_sum_of_its_clips(backbone, clip):
    part, errors = DiTFlow(reference=clip, inject=False), []
    x = torch.randn(backbone.latent_shape(2, 9, 64, 64), generator=torch.Generator().manual_seed(0))
    for requests, u in (([ASKED] * 2, x), ([ASKED], x[:1]), ([ASKED], x[1:])):
        with torch.no_grad(), Run.open(backbone, requests, [part]) as run:
            step = run.schedule[0]
            run.state[part].flow = part._flow(step, run.state[part].latents.to(u).expand_as(u), [], hard=True)[:1]
            errors.append(part.error(step, u).item())
    assert errors[0] == pytest.approx(errors[1] + errors[2], rel=1e-4) and errors[1] != pytest.approx(errors[2])


def test_a_batch_has_no_tables_of_its_own(backbone, clip, tmp_path):
    with pytest.raises(KinemaError, match="finds tables for one clip, and 2 are asked for"):
        made(backbone, DiTFlowPositions(reference=clip), request=[ASKED, ASKED.changed(seed=2)])


def test_tables_run_beside_another_attention_and_windows_are_refused(backbone, clip):
    assert (
        made(backbone, DiTFlow(reference=clip, noise_range=(1.0, 0.95)), GenLVideo(window=2, stride=1)).isfinite().all()
    )
    with pytest.raises(KinemaError, match="ditflow_positions has a table .* gen_l_video shows the clip in windows"):
        made(backbone, DiTFlowPositions(reference=clip), GenLVideo(window=2, stride=1))


def test_what_cannot_be_followed_is_refused(backbone, clip):
    for part, words in [
        (DiTFlow(), "reference of ditflow is empty"),
        (DiTFlow(reference=clip, iterations=-1), "iterations of ditflow is -1"),
        (DiTFlow(reference=clip, lr=(0.0, 0.1)), "lr"),
        (DiTFlow(reference=clip, block=9), "block of ditflow is 9; use 0 to 1"),
        (DiTFlow(reference=clip, block_range=(0, 1)), "block_range of ditflow"),
        (DiTFlowPositions(reference=clip, tables=clip, save="x"), "both tables and save"),
        (DiTFlowPositions(tables=clip), "cannot be read"),
        (DiTFlowPositions(reference=clip, save="/nowhere/x"), "nowhere"),
    ]:
        with pytest.raises(KinemaError, match=words):
            made(backbone, part)
    with pytest.raises(KinemaError, match="ditflow follows motion, and a video this short has none"):
        made(backbone, DiTFlow(reference=clip), request=ASKED.changed(num_frames=1))


def test_positions_added_to_tokens_are_refused_by_name(clip, tmp_path):
    backbone = load(cases()["cogvideox 2b"].build(tmp_path), device="cpu", dtype="float32")
    request = Request(prompt="a", **cases()["cogvideox 2b"].request)
    with pytest.raises(KinemaError, match="needs rotary positions, and model .* adds positions to its tokens"):
        made(backbone, DiTFlowPositions(reference=clip), request=request)
    assert made(backbone, DiTFlow(reference=clip, **STILL), request=request).isfinite().all()
