"""LTX-2's sound: equal to diffusers' latents and waves, guided with the video, kept in files and recipes."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.families.ltx2 import CASES, MAX_TOKENS
from backbones.test_families import NEGATIVE, PROMPT, SEED, Looks, TwoTexts, guidance, request
from kinema import Video, generate
from kinema.backbones.load import load, planner
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.guidance.modality_cfg import ModalityCFG
from kinema.request import Request

OLD, NEW = "ltx 2.0 t2v", "ltx 2.3 t2v"
TOLERANCE = 1e-4  # of latents of unit variance, and of waves in -1..1


def ours(backbone, case, pictures, *techniques, **more):
    """Latents of the video and of the sound, and waves."""
    seen = []
    asked = request(case, pictures, **more)
    sample(backbone, asked, techniques, on_step=lambda step, x: seen.append((x, step.run.conditions)))
    x, conditions = seen[-1]
    waves, rate = backbone.sound(conditions)
    assert rate == backbone.vocoder.config.output_sampling_rate
    return x, conditions.companion.x, waves


def theirs(pipeline, case, pictures):
    """The same of diffusers' pipeline, latents packed as it has them."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline._callback_tensor_inputs = ["latents", "audio_latents"]
    latents = {}
    waves = pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        **({"image": Image.open(pictures[0])} if case.images else {}),
        **case.call,
        **case.guidance,
        generator=torch.Generator().manual_seed(SEED),
        callback_on_step_end=lambda pipe, step, t, found: latents.update(found) or {},
        callback_on_step_end_tensor_inputs=["latents", "audio_latents"],
        output_type="np",
    ).audio
    return latents["latents"], latents["audio_latents"], waves


def packed(backbone, x, sound):
    return x.flatten(2).transpose(1, 2), backbone.pipeline._pack_audio_latents(sound[:, :, :, 0])


@pytest.mark.parametrize("name", ["ltx 2.0 t2v", "ltx 2.3 i2v", "ltx 2.3 i2v, no guidance"])
def test_the_sound_is_that_of_diffusers(name, folders, pictures):
    import diffusers

    case = CASES[name]
    folder = folders(f"{name[:7]} t2v")
    pipeline = getattr(diffusers, case.pipeline).from_pretrained(folder)
    _, latents, waves = theirs(pipeline, case, pictures)
    backbone = load(folder, device="cpu", dtype="float32")
    for backbone.joint_branches in (False, True):
        x, sound, heard = ours(backbone, case, pictures, *guidance(case))
        off, off_waves = (packed(backbone, x, sound)[1] - latents).abs().max(), (heard - waves).abs().max()
        print(f"{name}: sound latents {off:.1e}, waves {off_waves:.1e}")
        assert off <= TOLERANCE and off_waves <= TOLERANCE and waves.std() > 1e-2


def test_bit_for_bit_where_the_pipeline_does_not_go_to_the_clean_estimate_and_back(folders, pictures):
    import diffusers

    case = CASES["ltx 2.3 i2v, no guidance"]
    pipeline = diffusers.LTX2ImageToVideoPipeline.from_pretrained(folders(NEW))
    pipeline.convert_velocity_to_x0 = pipeline.convert_x0_to_velocity = lambda sample, v, *_: v
    latents = theirs(pipeline, case, pictures)
    backbone = load(folders(NEW), device="cpu", dtype="float32")
    x, sound, waves = ours(backbone, case, pictures)
    assert all(torch.equal(a, b) for a, b in zip((*packed(backbone, x, sound), waves), latents, strict=True))


def test_techniques_that_look_leave_the_sound_as_it_is_and_threads_do_not_share_it(folders):
    case, backbone = CASES[OLD], load(folders(OLD), device="cpu", dtype="float32")
    _, plain, _ = ours(backbone, case, [])
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ours, backbone, case, [], *parts, seed=seed) for parts, seed in
                (((), SEED), ((Looks(),), SEED), ((), 2))]  # fmt: skip
        same, looked, other = (job.result()[1] for job in jobs)
    assert torch.equal(same, plain) and torch.equal(looked, plain) and not torch.equal(other, plain)


def test_apart_video_and_sound_do_not_read_each_other(folders):
    case, backbone = CASES[NEW], load(folders(NEW), device="cpu", dtype="float32")
    conditions = backbone.prepare([request(case, [])])
    x, companion = backbone.noise(conditions, [torch.Generator().manual_seed(0)]), conditions.companion
    sound = companion.x

    def answered(dropped, of_x, of_sound):
        companion.x = of_sound
        companion.answers.clear()
        with torch.no_grad():
            return backbone.velocity(of_x, 0.9, conditions, frozenset(dropped)), companion.answers[0]

    for dropped in ((), ("modality",)):
        v, heard = answered(dropped, x, sound)
        assert torch.equal(answered(dropped, x, 2 * sound)[0], v) == bool(dropped)
        assert torch.equal(answered(dropped, 2 * x, sound)[1], heard) == bool(dropped)


def test_sound_reads_the_text_of_the_frame_it_is_heard_with(folders):
    case, backbone = CASES[OLD], load(folders(OLD), device="cpu", dtype="float32")
    # As many latent frames of sound as frames of video a second. The first of both lasts shorter, a quarter of a frame.
    seen = backbone._seen_with(torch.zeros(1, 2, 17, 1, 4), 3, fps=25.0)
    assert seen.tolist() == 2 * [0] + 8 * [1] + 7 * [2]
    other = TwoTexts(prompts=(PROMPT, "a cube jumps right"))
    _, sound, _ = ours(backbone, case, [], TwoTexts())
    _, changed, _ = ours(backbone, case, [], other)
    assert (sound - changed).abs().max() > 1e-3


def test_generate_writes_sound_and_the_recipe_knows_it(folders, tmp_path, capsys):
    def made(*words, out):
        assert run(["generate", *words, "--out", str(out), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    call = dict(CASES[OLD].request, model=folders(OLD), device="cpu", seed=3)
    options = [part for name, value in call.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    first = tmp_path / "clip.mp4"
    assert made(PROMPT, *options, out=first)["sample_rate"] == 24000
    video = Video.load(first)
    assert video.sample_rate == 24000 and video.sound.shape[1] == 2 and video.seconds == 17 / 20
    assert abs(len(video.sound) / 24000 - 0.81) < 0.1 and video.sound.std() > 1e-2
    recipe = video.metadata["kinema"]
    assert len(recipe["sound"]) == 64 and recipe["sound"] != recipe["frames"]
    again = made("--from", str(first), out=tmp_path / "again.mp4")
    assert again["same_frames"] is True and again["differences"] == []
    assert (tmp_path / "again.mp4").read_bytes() == first.read_bytes()
    beside = first.with_suffix(".json")
    beside.write_text(beside.read_text().replace(recipe["sound"], 64 * "0"))
    assert made("--from", str(beside), out=tmp_path / "other.mp4")["same_frames"] is False


def test_streamed_from_the_files_it_sounds_the_same(folders):
    case, folder = CASES[NEW], folders(NEW)
    plain = ours(load(folder, device="cpu", dtype="float32"), case, [])
    streamed = ours(load(folder, device="cpu", dtype="float32", offload="stream"), case, [])
    assert all(torch.equal(a, b) for a, b in zip(streamed, plain, strict=True))


def test_defaults_are_the_guidance_of_the_authors(folders):
    backbone = load(folders(NEW), device="cpu", dtype="float32")
    size = dict(CASES[NEW].request, model=backbone, prompt=PROMPT, seed=1)
    default, named = generate(**size), generate(**size, techniques=[ModalityCFG(block_range=(1, 1))])
    assert np.array_equal(default.sound, named.sound) and np.array_equal(default.frames, named.frames)
    weaker = generate(**size, guidance_scale=1.5)
    assert not np.array_equal(default.sound, weaker.sound)


def test_the_plan_counts_the_calls_and_every_part(folders):
    plan = planner(folders(NEW), device="cpu", dtype="float32").plan(Request(prompt=PROMPT), guided=True)
    assert {part.name for part in plan.parts} == {
        "text_encoder", "connectors", "transformer", "vae", "audio_vae", "vocoder"
    }  # fmt: skip
    assert plan.calls == 4 * 30 and plan.samples == 1 and plan.decoding > 0


def test_refusals(folders, tiny_wan, pictures):
    backbone = load(folders(OLD), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="too short for sound"):
        backbone.prepare([Request(prompt=PROMPT, num_frames=1, fps=120)])
    with pytest.raises(KinemaError, match="leaves out 'modality'"):
        sample(load(tiny_wan, device="cpu"), Request(prompt="a", height=32, width=32, num_frames=5), [ModalityCFG()])
    with pytest.raises(KinemaError, match="for the sound are"):
        sample(backbone, request(CASES[OLD], []), [ModalityCFG(sound_rescale=2.0)])
    with pytest.raises(KinemaError, match="leave last_image out"):
        backbone.prepare([Request(prompt=PROMPT, image=str(pictures[0]), last_image=str(pictures[1]))])
    assert backbone.pipeline.tokenizer.model_max_length == MAX_TOKENS
