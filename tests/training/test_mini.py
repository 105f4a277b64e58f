"""Stage 2 of mini: batches, loss, resume, and the model folder it leaves behind."""

import json
import math
from dataclasses import replace

import pytest
import torch

from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.training import mini
from kinema.training.autoencoder import AutoencoderRecipe
from kinema.training.export import load_averaged
from kinema.training.latents import CacheSettings, LatentCache, fill_cache, open_cache
from kinema.training.mini import export_checkpoint, prepare_tokenizer, train_text_to_video
from kinema.training.recipe import load_section
from kinema.training.text_to_video import (
    PreviewSettings,
    TextSettings,
    TextToVideo,
    TextToVideoSettings,
    TransformerSettings,
    build_transformer,
    load_parts,
)
from kinema.training.trainer import Trainer, TrainerSettings

TINY = TransformerSettings(num_layers=1, num_attention_heads=2, attention_head_dim=12, ffn_dim=32, freq_dim=16)
SETTINGS = TextToVideoSettings(
    trainer=TrainerSettings(steps=3, batch_size=2, warmup_steps=1, precision="fp32"),
    transformer=TINY,
    text=TextSettings(d_model=16, d_ff=16, num_layers=1, num_heads=2, captions=200),
    cache=CacheSettings(clips=4, start=4, clips_per_shard=4, render_batch=4),
    preview=PreviewSettings(prompts=("a red ball rolls left",), steps=1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which three steps were trained."""
    root = tmp_path_factory.mktemp("run")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoencoderKLKinema(widths=(8, 8, 8), z_dim=4, decoder_depths=(1, 1, 1)).save_pretrained(root / "vae")
    report = train_text_to_video(SETTINGS, root, root / "vae", say=lambda _: None)
    assert report.step == 3 and math.isfinite(report.loss)
    return root


@pytest.fixture
def stage(run):
    vae = AutoencoderKLKinema.from_pretrained(run / "vae").eval()
    return TextToVideo(SETTINGS, LatentCache(run / "latents"), prepare_tokenizer(run / "tokenizer", SETTINGS), vae)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_batches_are_functions_of_step_and_generator_and_vary_in_kind(stage):
    batches = [stage.batch(1, generator(s)) for s in range(60)]
    lengths = [b["latents"].shape[2] for b in batches]
    assert lengths.count(7) > 35 and 1 in lengths and any(1 < n < 7 for n in lengths)
    assert all(not b["given"].any() for b in batches if b["latents"].shape[2] == 1)
    share = sum(bool(b["given"].any()) for b in batches) / len(batches)
    assert 0.1 < share < 0.5
    again = stage.batch(1, generator(5))
    assert all(torch.equal(again[key], batches[5][key]) for key in again)


def test_a_perfect_model_has_no_loss(stage):
    class Perfect(torch.nn.Module):
        def forward(self, x, timestep, text, return_dict):
            levels = timestep[:, None] if timestep.ndim == 1 else timestep.unflatten(1, (x.shape[2], -1))[..., 0]
            t = (levels / 1000)[:, None, :, None, None]  # (B, 1, T or 1, 1, 1)
            return ((x - self.x0) / t.clamp_min(1e-6),)  # v = (x_t - x0) / t

    for seed in range(12):
        batch = stage.batch(1, generator(seed))
        stage.transformer = Perfect()
        stage.transformer.x0 = batch["latents"]
        loss, numbers = stage.loss(batch, generator(1))
        assert float(loss) < 1e-6 and all(key.startswith("loss_t") for key in numbers)


def test_loss_of_a_fresh_model_is_that_of_answering_zero(stage):
    batch = stage.batch(1, generator(2))
    loss, _ = stage.loss(batch, generator(1))
    noise = torch.randn(batch["latents"].shape, generator=generator(1))
    error = (noise - batch["latents"]).square().mean((1, 3, 4))[~batch["given"]].mean()
    torch.testing.assert_close(loss, error)


def test_one_time_a_clip_is_the_same_function_as_one_a_token():
    model = build_transformer(TINY, 4, 16, 0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=generator(1))
    x, text = torch.randn(2, 4, 3, 4, 4, generator=generator()), torch.randn(2, 5, 16, generator=generator())
    t = torch.tensor([300.0, 900.0])
    whole = model(x, t, text, return_dict=False)[0]
    tokens = model(x, t[:, None].expand(2, 12), text, return_dict=False)[0]
    torch.testing.assert_close(whole, tokens, atol=1e-5, rtol=1e-4)


def test_checkpointed_gradients_are_the_same():
    x, text = torch.randn(1, 4, 2, 4, 4, generator=generator()), torch.randn(1, 5, 16, generator=generator())
    gradients = []
    for checkpointing in (False, True):
        model = build_transformer(replace(TINY, gradient_checkpointing=checkpointing), 4, 16, 0).train()
        torch.nn.init.normal_(model.proj_out.weight, generator=generator(1))
        model(x, torch.tensor([500.0]), text, return_dict=False)[0].square().mean().backward()
        gradients.append(model.patch_embedding.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_training_begins_with_the_weights_of_another(run, stage):
    parts = (stage.cache, stage.tokenizer, stage.autoencoder)
    again = TextToVideo(replace(SETTINGS, start_from=str(run / "model")), *parts)
    shipped = load_parts(run / "model")
    for found, expected in zip(again.modules.values(), shipped, strict=True):
        for (key, a), b in zip(found.state_dict().items(), expected.state_dict().values(), strict=True):
            assert torch.equal(a, b) and a.dtype == torch.float32, key
    with pytest.raises(ValueError, match="start_from is 'nowhere'; use an embedded model"):
        TextToVideo(replace(SETTINGS, start_from="nowhere"), *parts)


def test_resumed_training_equals_an_unbroken_one(run, stage, tmp_path):
    vae, cache, tokenizer = stage.autoencoder, stage.cache, stage.tokenizer
    for steps in (1, 3):
        part = replace(SETTINGS, trainer=replace(SETTINGS.trainer, steps=steps, schedule="constant", decay=1e-6))
        resumed = TextToVideo(part, cache, tokenizer, vae)
        Trainer(resumed, part.trainer, tmp_path / "resumed").run()
    unbroken = TextToVideo(part, cache, tokenizer, vae)
    Trainer(unbroken, part.trainer, tmp_path / "unbroken").run()
    for name, module in unbroken.modules.items():
        for (key, a), b in zip(module.state_dict().items(), resumed.modules[name].state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name}.{key}"


def test_the_model_folder_loads_in_diffusers_and_holds_the_average(run, stage):
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(run / "model", dtype=torch.float32)
    assert pipeline.config.expand_timesteps and pipeline.scheduler.config.flow_shift == SETTINGS.flow_shift
    checkpoint = run / "text_to_video" / "checkpoints" / "step-00000003"
    for name, module in stage.modules.items():
        load_averaged(module, checkpoint, name)
        loaded = getattr(pipeline, name).state_dict()
        for key, value in module.state_dict().items():
            torch.testing.assert_close(loaded[key].float(), value, atol=1e-2, rtol=1e-2)
    frames = pipeline(
        "a red ball",
        height=128,
        width=128,
        num_frames=5,
        num_inference_steps=1,
        max_sequence_length=48,
        output_type="pt",
    ).frames
    assert frames.shape == (1, 5, 3, 128, 128)


def test_a_running_training_can_be_exported(run, tmp_path):
    out = export_checkpoint(SETTINGS, run, run / "vae", tmp_path / "preview")
    card = json.loads((out / "card.json").read_text())
    assert card["training"]["steps"] == 3 and card["training"]["clips_seen"] == 6
    assert "CPU thread" in card["training"]["hardware"]
    ours, theirs = (
        (p / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() for p in (out, run / "model")
    )
    assert ours == theirs
    assert not any(str(run) in p.read_text() for p in out.rglob("*.json")), "the model tells where it was trained"


def test_a_finished_autoencoder_is_measured_once(tmp_path, monkeypatch):
    class Small:
        def __init__(self, settings):
            sizes = dict(z_dim=2, widths=(4, 4, 4), encoder_depths=None, decoder_depths=(1, 1, 1))
            self.vae = AutoencoderKLKinema(**sizes)
            self.modules = {"vae": self.vae}

        def batch(self, step, generator):
            return {"frames": torch.zeros(1, 3, 1, 16, 16)}

        def loss(self, batch, generator):
            return self.vae(batch["frames"]).sample.square().mean(), {}

        def sheet(self, path):
            pass

    measured = []
    monkeypatch.setattr(mini, "AutoencoderStage", Small)
    monkeypatch.setattr(mini, "measure_latents", lambda *_: None)
    monkeypatch.setattr(mini, "evaluate", lambda _: measured.append(1) or {"psnr": 1.0, "clips": 1})
    settings = AutoencoderRecipe(trainer=TrainerSettings(steps=1))
    for _ in range(2):
        report = mini.train_autoencoder(settings, tmp_path / "autoencoder", tmp_path / "vae")
        assert report.step == 1 and not report.interrupted
    assert len(measured) == 1 and (tmp_path / "vae" / "config.json").is_file()


def test_settings_of_another_size_are_refused(run, tmp_path):
    other = replace(SETTINGS, transformer=replace(TINY, ffn_dim=64))
    with pytest.raises(ValueError, match="other settings"):
        export_checkpoint(other, run, run / "vae", tmp_path / "preview")


def test_the_recipe_of_mini_is_whole():
    settings = load_section("mini", "stage2", TextToVideoSettings)
    model = build_transformer(settings.transformer, 32, settings.text.d_model, 0)
    assert 6e6 < sum(p.numel() for p in model.parameters()) < 9e6


def test_the_cache_of_a_finished_training_is_not_rendered_again(run):
    times = [p.stat().st_mtime_ns for p in sorted((run / "latents").glob("shard-*"))]
    vae = AutoencoderKLKinema.from_pretrained(run / "vae").eval()
    open_cache(run / "latents", SETTINGS.cache, run / "vae")
    fill_cache(run / "latents", SETTINGS.cache, vae)
    assert times == [p.stat().st_mtime_ns for p in sorted((run / "latents").glob("shard-*"))]


def test_a_model_never_replaces_another_folder(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other things than a model"):
        export_checkpoint(SETTINGS, run, run / "vae", tmp_path / "mine")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "letter.txt"]
