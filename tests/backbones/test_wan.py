"""The Wan family's border: token grid, times, sizes, experts, pictures."""

import base64
import inspect
import json
import re
import shutil
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from PIL import Image

from kinema.backbones.load import load
from kinema.backbones.wan_images import given_mask
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.guidance.cfg import CFG
from kinema.pictures import open_picture
from kinema.request import Request


@pytest.fixture(scope="module")
def ti2v(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def experts(tiny_folder):
    return load(tiny_folder("wan22_t2v"), device="cpu", dtype="float32")


def request(**fields):
    return Request(
        **{**dict(prompt="a red ball", num_frames=9, height=32, width=64, num_inference_steps=3, seed=0), **fields}
    )


def test_grid_names_the_cell_that_feeds_each_token(ti2v):
    shape = (1, 48, 3, 4, 6)
    grid = ti2v.grid(shape)
    assert grid.shape == (3 * 2 * 3, 3)
    plain = ti2v.transformer.patch_embedding(torch.zeros(shape)).flatten(2)
    for token, (frame, row, column) in enumerate(grid.tolist()):
        for corner in ((0, 0), (1, 1)):  # both ends of the patch
            x = torch.zeros(shape)
            x[:, :, frame, row + corner[0], column + corner[1]] = 1.0
            changed = (ti2v.transformer.patch_embedding(x).flatten(2) - plain).abs().sum(1)[0] > 0
            assert changed.nonzero().flatten().tolist() == [token]


def test_sites_are_every_attention_in_order(ti2v):
    assert [(s.block, s.kind, s.heads, s.head_dim) for s in ti2v.sites] == [
        (0, "self", 2, 12), (0, "cross", 2, 12), (1, "self", 2, 12), (1, "cross", 2, 12),
    ]  # fmt: skip


def test_velocity_is_the_transformer_at_a_thousand_t(experts):
    conditions = experts.prepare([request()])
    x = experts.noise(conditions, [torch.Generator().manual_seed(1)])
    for model, t in ((experts.transformer, 0.9), (experts.transformer_2, 0.5)):
        text = experts.encode_prompt(["a red ball"])
        expected = model(x, torch.tensor([1000 * t]), text, return_dict=False)[0]
        torch.testing.assert_close(experts.velocity(x, t, conditions), expected, atol=1e-6, rtol=1e-6)


def test_clean_end_of_the_velocity_gives_the_data(ti2v):
    # With v = noise - x0 the loop's path must return x0 from x_t at any level, in the model's own units.
    from kinema.core.path import RectifiedFlow

    x0, noise = torch.randn(2, 1, 48, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    path = RectifiedFlow()
    torch.testing.assert_close(path.clean(path.add_noise(x0, noise, 0.3), noise - x0, 0.3), x0)


def test_each_latent_frame_has_its_own_time(ti2v):
    conditions = ti2v.prepare([request()])
    x = ti2v.noise(conditions, [torch.Generator().manual_seed(1)])
    seen = []
    model = ti2v.transformer.register_forward_pre_hook(lambda m, a, k: seen.append(k["timestep"]), with_kwargs=True)
    try:
        same = ti2v.velocity(x, 0.5, conditions), ti2v.velocity(x, torch.full((1, 3), 0.5), conditions)
        ti2v.velocity(x, torch.tensor([[0.0, 0.25, 1.0]]), conditions)
    finally:
        model.remove()
    assert torch.equal(*same)
    assert seen[-1].tolist() == [[0.0] * 2 + [250.0] * 2 + [1000.0] * 2]  # 1 x 2 tokens a frame


def test_one_clock_refuses_times_by_frame(experts):
    conditions = experts.prepare([request()])
    x = torch.zeros(conditions.shape)
    with pytest.raises(KinemaError, match="one noise level for the whole clip"):
        experts.velocity(x, torch.full((1, 3), 0.5), conditions)


def test_experts_change_at_the_boundary(experts):
    used = []
    hooks = [
        m.register_forward_pre_hook(lambda *_, name=name: used.append(name))
        for name, m in (("high", experts.transformer), ("low", experts.transformer_2))
    ]
    levels = []
    try:
        sample(experts, request(num_inference_steps=6), on_step=lambda step, x: levels.append(step.told))
    finally:
        for hook in hooks:
            hook.remove()
    assert used == ["high" if t >= 0.875 else "low" for t in levels]
    assert {"high", "low"} == set(used)


def test_second_guidance_scale_acts_below_the_boundary(experts):
    def after(**scales):
        xs = []
        sample(
            experts, request(num_inference_steps=6), [CFG(**scales)], on_step=lambda step, x: xs.append((step.told, x))
        )
        return xs

    one, two = after(scale=4.0), after(scale=4.0, low_noise_scale=1.5)
    for (t, a), (_, b) in zip(one, two, strict=True):
        assert torch.equal(a, b) == (t >= 0.875)


def test_given_mask_marks_frames_inside_their_latent_frame():
    given = torch.zeros(1, 9)
    given[0, [0, 8]] = 1
    # First latent frame: its one picture counts four times; last: only the fourth of its pictures is given.
    assert given_mask(given, 4)[0].T.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_first_frame_stays_what_the_image_says(ti2v, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    asked = request()
    conditions = ti2v.prepare([SimpleNamespace(**{**asked.model_dump(), "text": asked.text, "image": image})])
    assert conditions.known_frames.flatten().tolist() == [True, False, False]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None, :, None] / 127.5 - 1
    torch.testing.assert_close(conditions.known[:, :, :1], ti2v.encode(pixels))


def test_a_batch_is_its_requests_one_by_one(ti2v):
    requests = [request(seed=4), request(seed=5, prompt="a blue cube jumps left")]
    both = sample(ti2v, requests, [CFG(scale=3.0)])
    alone = torch.cat([sample(ti2v, r, [CFG(scale=3.0)]) for r in requests])
    assert (both.int() - alone.int()).abs().max() <= 1


def test_prompt_embeddings_equal_the_pipelines(tiny_folder):
    folder = tiny_folder("wan21_t2v")
    prompt = "a  red <i> &amp;amp; blue\n ball rolls left on the “ring”"
    theirs = WanPipeline.from_pretrained(folder).encode_prompt(prompt, "", max_sequence_length=512)
    ours = load(folder, device="cpu").encode_prompt([prompt, ""])
    torch.testing.assert_close(ours, torch.cat(theirs), atol=1e-6, rtol=0)
    assert not ours[:, 40:].any()


def test_own_autoencoder_and_short_prompts_in_the_same_place(tiny_folder):
    backbone = load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")
    conditions = backbone.prepare([request()])
    assert conditions.shape == (1, 8, 3, 2, 4) and conditions.texts[False]["text"].shape == (1, 48, 16)
    parts = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    pipeline = WanPipeline(**{name: getattr(backbone, name) for name in parts}, expand_timesteps=True)
    pipeline.set_progress_bar_config(disable=True)
    options = dict(height=32, width=64, num_frames=9, num_inference_steps=3, guidance_scale=4.0, max_sequence_length=48)
    generator = torch.Generator().manual_seed(0)
    theirs = pipeline("a red ball", "", generator=generator, output_type="np", **options).frames[0]
    ours = sample(backbone, request(), [CFG(scale=4.0)])[0].numpy()
    assert np.abs(ours - np.round(theirs * 255)).max() <= 1  # one batch for both branches rounds otherwise
    backbone.joint_branches = False
    assert np.array_equal(sample(backbone, request(), [CFG(scale=4.0)])[0].numpy(), np.round(theirs * 255))


@pytest.mark.parametrize(
    "fields, says",
    [
        (dict(num_frames=10), "num_frames is 10; this model makes a multiple of 4 plus 1, 1 to 125: use 9 or 13"),
        (dict(num_frames=400), "num_frames is 400.* use 125"),
        (dict(height=50), "height is 50; this model makes a multiple of 32, 32 to 1024: use 32 or 64"),
        (dict(width=8), "width is 8; .* use 32"),
        (dict(width=2000), "width is 2000; .* use 1024"),
        (dict(image="missing.png"), "'missing.png' does not exist"),
        (dict(image="missing.png", last_image="missing.png"), "takes a first image only"),
        (dict(last_image="missing.png"), "last_image needs an image"),
    ],
)
def test_refuses_what_it_cannot_make(ti2v, fields, says):
    with pytest.raises(KinemaError, match=says):
        ti2v.prepare([request(**fields)])


@pytest.mark.parametrize("forcing", [False, True])
def test_skyreels_has_defaults_of_its_own(tiny_folder, forcing):
    found = load(tiny_folder("skyreels", forcing=forcing), device="cpu", dtype="float32").defaults
    call = diffusers.SkyReelsV2DiffusionForcingPipeline if forcing else diffusers.SkyReelsV2Pipeline
    theirs = inspect.signature(call.__call__).parameters
    for name in ("height", "width", "num_frames", "num_inference_steps", "guidance_scale"):
        assert getattr(found, name) == theirs[name].default
    assert found.fps == 24


def test_a_last_picture_fills_the_last_latent_frame_where_the_card_says_so(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder("kinema_mini"), folder)
    (folder / "card.json").write_text(json.dumps({"takes_last_image": True}))
    backbone = load(folder, device="cpu", dtype="float32")
    for name, colour in (("first", (255, 0, 0)), ("last", (0, 0, 255))):
        Image.new("RGB", (64, 32), colour).save(tmp_path / f"{name}.png")
    pictures = dict(image=str(tmp_path / "first.png"), last_image=str(tmp_path / "last.png"))
    conditions = backbone.prepare([request(**pictures)])
    assert conditions.known_frames.flatten().tolist() == [True, False, True]
    blue = torch.tensor([-1.0, -1.0, 1.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, 5, 32, 64)
    torch.testing.assert_close(conditions.known[:, :, -1:], backbone.encode(blue)[:, :, -1:])


@pytest.mark.parametrize(
    "kind, fields, says",
    [
        ("wan21_t2v", dict(image="missing.png"), "makes video from text alone"),
        ("wan22_i2v", {}, "makes video from an image; give one"),
        ("wan21_i2v", dict(image="a.png", last_image="b.png"), "takes a first image only"),
    ],
)
def test_refuses_images_it_cannot_use(kind, fields, says, tiny_folder):
    with pytest.raises(KinemaError, match=says):
        load(tiny_folder(kind), device="cpu").prepare([request(**fields)])


def test_refuses_unequal_requests_and_unknown_branches(ti2v):
    with pytest.raises(KinemaError, match="differ in size"):
        ti2v.prepare([request(), request(num_frames=5)])
    with pytest.raises(KinemaError, match="differ in their images"):
        ti2v.prepare([request(), request(image="a.png")])

    class Dropping(CFG):
        branches = {"cond": frozenset(), "uncond": frozenset({"image"})}  # noqa: RUF012

    with pytest.raises(KinemaError, match="cfg leaves out 'image' .* can leave out text"):
        sample(ti2v, request(), [Dropping()])


def test_pictures_from_every_source(tmp_path):
    from PIL import Image

    clear = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((0, 0)) == (0, 0, 0)
    encoded = base64.b64encode((tmp_path / "clear.png").read_bytes()).decode()
    assert open_picture(f"data:image/png;base64,{encoded}").size == (4, 3)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    for source in (
        tmp_path / "broken.png",
        "data:image/png;base64,AAAA",
        "data:nothing",
        tmp_path,
        tmp_path / "no.png",
    ):
        with pytest.raises(KinemaError, match=r"^image '"):
            open_picture(source)
    with pytest.raises(KinemaError, match=re.escape("(2, 2) float64")):
        open_picture(np.zeros((2, 2)))


def test_vace_keeps_given_pictures_as_diffusers_does(tiny_folder, tmp_path):
    from diffusers import WanVACEPipeline

    folder = tiny_folder("wan21_vace")
    paths = {name: tmp_path / f"{name}.png" for name in ("image", "last_image")}
    for i, path in enumerate(paths.values()):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    backbone = load(folder, device="cpu", dtype="float32")
    control = backbone.prepare([request(**paths)]).inputs["control"]
    pipeline = WanVACEPipeline.from_pretrained(folder)
    video, mask = torch.zeros(1, 3, 9, 32, 64), torch.ones(1, 3, 9, 32, 64)
    for place, path in zip((0, -1), paths.values(), strict=True):
        picture = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 127.5 - 1
        video[:, :, place], mask[:, :, place] = picture, 0
    theirs = torch.cat([pipeline.prepare_video_latents(video, mask, [[]]), pipeline.prepare_masks(mask, [[]])], dim=1)
    torch.testing.assert_close(control, theirs, atol=1e-5, rtol=1e-5)
