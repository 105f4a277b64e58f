"""The stages of `kinema train mini`: autoencoder, latent cache, tokenizer, transformer, and the model folder.

All of it lies in the folder of the run:

    autoencoder/     checkpoints, log, loss curve, sample sheets of stage 1
    vae/             the finished autoencoder, and its scores
    latents/         the growing cache
    tokenizer/       words of the captions
    text_to_video/   checkpoints, log, loss curve, sample sheets of stage 2
    model/           the finished model in diffusers layout
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from kinema.files import make_folder, replacing
from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.training.autoencoder import AutoencoderRecipe, AutoencoderStage, evaluate, measure_latents
from kinema.training.checkpoint import checkpoints
from kinema.training.export import load_averaged
from kinema.training.hardware import hardware
from kinema.training.latents import Filler, LatentCache, fill_cache, open_cache
from kinema.training.text_to_video import TextToVideo, TextToVideoSettings, model_folder, tokenizer_of_world
from kinema.training.trainer import Report, Trainer


def train_autoencoder(
    settings: AutoencoderRecipe, folder: Path, out: Path, device: str = "cpu", say: Callable[[str], None] = print
) -> Report:
    """Train (or resume) stage 1 in `folder`; the averaged weights, with their statistics, are written to `out`."""
    stage = AutoencoderStage(settings)
    trainer = Trainer(stage, settings.trainer, folder, device)
    report = trainer.run()
    scored = out / "scores.json"
    if scored.is_file() and json.loads(scored.read_text(encoding="utf-8")).get("step") == report.step:
        return report  # it was finished, measured and written before
    if not report.interrupted:
        with trainer.ema.swapped_in():
            stage.vae.eval()
            measure_latents(stage.vae, settings.statistics_clips)
            scores = {**evaluate(stage.vae), "step": report.step}
            make_folder(out.parent)
            with replacing(out) as temporary:
                stage.vae.save_pretrained(temporary)
                (temporary / scored.name).write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        say(f"autoencoder: {scores['psnr']:.2f} dB on {scores['clips']} held-out clips")
    return report


def load_autoencoder(folder: Path, device: str = "cpu") -> AutoencoderKLKinema:
    """The frozen autoencoder of stage 1. Raises: ValueError when the folder holds none."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no autoencoder in {folder}; run stage1 of the recipe first")
    model: Any = AutoencoderKLKinema.from_pretrained(folder)
    frozen: AutoencoderKLKinema = model.to(device).eval().requires_grad_(False)
    return frozen


def prepare_tokenizer(folder: Path, settings: TextToVideoSettings) -> Any:
    """The tokenizer in `folder`, made and saved there the first time."""
    if (folder / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(folder)
    if settings.start_from is not None:
        tokenizer = AutoTokenizer.from_pretrained(model_folder(settings.start_from) / "tokenizer")
    else:
        tokenizer = tokenizer_of_world(settings.text, settings.cache.curriculum, settings.trainer.seed)
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_text_to_video(
    settings: TextToVideoSettings,
    folder: Path,
    autoencoder: Path,
    out: Path | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Report:
    """Train (or resume) in `folder`, see the head of this file; the model is written to `out` (default: model/).

    The first `cache.start` clips are rendered before the training, the others beside it by another process.
    What an interrupted training has learned is not written to `out`; `export_checkpoint` does it.
    """
    vae = load_autoencoder(autoencoder, device)
    latents = folder / "latents"
    open_cache(latents, settings.cache, autoencoder)
    if LatentCache.count(latents) < settings.cache.start:
        say(f"rendering the first {settings.cache.start} clips into {latents}")
        fill_cache(
            latents,
            settings.cache,
            vae,
            until=settings.cache.start,
            device=device,
            on_shard=lambda clips: say(f"{clips} clips rendered"),
        )
    tokenizer = prepare_tokenizer(folder / "tokenizer", settings)
    cache = LatentCache(latents)
    filler = Filler(latents, settings.cache, autoencoder, device) if len(cache) < settings.cache.clips else None
    try:
        stage = TextToVideo(settings, cache, tokenizer, vae, filler)
        if not checkpoints(folder / "text_to_video" / "checkpoints"):
            stage.learn_to_read(say)
        trainer = Trainer(stage, settings.trainer, folder / "text_to_video", device)
        report = trainer.run()
    finally:
        if filler is not None:
            filler.stop()
    if not report.interrupted:
        card = make_card(settings, stage, report.step, report.clips, report.seconds, device)
        card["training"]["loss"] = round(report.loss, 5)
        with trainer.ema.swapped_in():
            stage.export(out or folder / "model", card)
    return report


def export_checkpoint(
    settings: TextToVideoSettings, folder: Path, autoencoder: Path, out: Path, device: str = "cpu"
) -> Path:
    """Write the model of the newest checkpoint of a training in `folder`, which may go on meanwhile; gives `out`.

    Raises: ValueError when there is no checkpoint, or one of other settings.
    """
    found = checkpoints(folder / "text_to_video" / "checkpoints")
    if not found:
        raise ValueError(f"there is no checkpoint in {folder / 'text_to_video'}; train first")
    stage = TextToVideo(
        settings,
        LatentCache(folder / "latents", most=1),
        AutoTokenizer.from_pretrained(folder / "tokenizer"),
        load_autoencoder(autoencoder),
    )
    for name, module in stage.modules.items():
        load_averaged(module, found[-1], name)
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    clips = state["step"] * settings.trainer.batch_size * settings.trainer.accumulate
    card = make_card(settings, stage, state["step"], clips, state["seconds"], device)
    card["training"]["cached_clips"] = LatentCache.count(folder / "latents")
    if "hardware" in state:  # of the training; the export may run elsewhere, or on fewer threads
        card["training"]["hardware"] = state["hardware"]
    return stage.export(out, card)


def make_card(
    settings: TextToVideoSettings, stage: TextToVideo, steps: int, clips: int, seconds: float, device: str
) -> dict[str, Any]:
    """What a person should know of the model: data, training, hardware; scores are added by whoever measures."""
    s, defaults = settings, stage.defaults()
    return {
        "name": "mini",
        "what": "text to video and image to video, the Wan 2.2 TI2V architecture at a small size",
        "parameters": {
            **{name: sum(p.numel() for p in module.parameters()) for name, module in stage.modules.items()},
            "vae": sum(p.numel() for p in stage.autoencoder.parameters()),
        },
        "data": {
            "world": f"kinema.world, curriculum {s.cache.curriculum!r}, training split",
            **{name: defaults[name] for name in ("num_frames", "height", "width", "fps")},
            "seeds": [s.cache.first_seed, s.cache.first_seed + s.cache.clips],
        },
        "training": {
            "objective": "rectified flow, logit-normal times, a time for each latent frame",
            "steps": steps,
            "clips_seen": clips,
            "cached_clips": len(stage.cache),
            "seconds": round(seconds),
            "hardware": hardware(device),
            "torch": torch.__version__,
            "settings": asdict(s),
        },
        "defaults": defaults,
        "takes_last_image": True,  # clips with a given first and last latent frame are part of the training
        "text": {"max_sequence_length": s.text.max_tokens, "words": len(stage.tokenizer)},
        "scores": {},
    }
