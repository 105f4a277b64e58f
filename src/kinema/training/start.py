"""The model that a training begins with: an earlier one, or a fresh one, written as a folder like any other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.backbones.folder import Folder
from kinema.backbones.load import locate
from kinema.models.autoencoder import CELL, GROUP, AutoencoderKLKinema
from kinema.models.text import build_text_encoder, tokenize
from kinema.training.captions import draw_captions, tokenizer_of_world
from kinema.training.export import write_model
from kinema.training.networks import PIPELINES, build_network, build_scheduler
from kinema.training.reading import learn_to_read
from kinema.training.video_settings import SECTIONS, Place, VideoSettings
from kinema.world.curricula import Curriculum, get_curriculum
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

Say = Callable[[str], None]


def model_to_begin_with(settings: VideoSettings, place: Place, say: Say) -> Path:
    """The folder of the model that a section begins with; a fresh one is made the first time."""
    if settings.start_from is not None:
        earlier = place.folder / settings.start_from / "model"
        if settings.start_from in SECTIONS and not earlier.is_dir():
            raise ValueError(
                f"section {place.section!r} goes on from {settings.start_from!r}, which has left no model in "
                f"{place.folder}; train that first"
            )
        return earlier if earlier.is_dir() else locate(settings.start_from)
    start = place.folder / "start"
    if not start.is_dir():
        _write_fresh(settings, place, start, say)
        return start
    found = Folder.open(start, str(start)).card.get("made_of", {})
    now = _made_of(settings)
    other = next((name for name, value in now.items() if name in found and found[name] != value), None)
    if other is not None:
        raise ValueError(f"{start} was made with another {other}; use another folder, or begin anew with --restart")
    return start


def _made_of(settings: VideoSettings) -> dict[str, Any]:
    """What decides a fresh model, as JSON has it."""
    names = ("network", "text", "reading", "parts_from", "flow_shift", "snr_shift_scale")
    told = asdict(settings)
    found = {name: told[name] for name in names}
    found["network"].pop("gradient_checkpointing")  # changes no number
    made_of: dict[str, Any] = json.loads(json.dumps({**found, "seed": settings.trainer.seed}))
    return made_of


def _write_fresh(settings: VideoSettings, place: Place, out: Path, say: Say) -> None:
    """A fresh network with a fresh text encoder, which has learned to read, or the one of another model."""
    s = settings
    clip = get_curriculum(s.cache.curriculum)
    autoencoder = load_autoencoder(place.autoencoder or locate(s.parts_from) / "vae")
    tokenizer, encoder = _text(s, say)
    cells = ((clip.num_frames - 1) // GROUP + 1, clip.height // CELL, clip.width // CELL)
    length, seed = tokenizer.model_max_length, s.trainer.seed
    network = build_network(s.network, autoencoder.config["z_dim"], encoder.config.d_model, length, cells, seed + 1)
    pipeline, name = PIPELINES[s.network.kind]
    if s.network.kind == "wan":
        index = {"expand_timesteps": True, "boundary_ratio": None, "transformer_2": [None, None]}
    else:
        index = {"motion_adapter": [None, None]} if s.network.kind == "unet" else {}
    write_model(
        out,
        pipeline,
        networks={name: network, "text_encoder": encoder, "vae": autoencoder},
        tokenizer=tokenizer,
        scheduler=build_scheduler(s.network.kind, s.flow_shift, s.snr_shift_scale),
        card={"defaults": _defaults(s, clip), "made_of": _made_of(s)},
        index=index,
        exact=name,
    )


def _text(settings: VideoSettings, say: Say) -> tuple[Any, Any]:
    """Tokenizer and text encoder of a fresh model."""
    from transformers import UMT5EncoderModel

    if settings.text is None:
        folder = Folder.open(locate(settings.parts_from), settings.parts_from)
        encoder = folder.module("text_encoder", [UMT5EncoderModel], torch.device("cpu"), torch.float32)
        return folder.tokenizer(), encoder
    t, seed = settings.text, settings.trainer.seed
    tokenizer = tokenizer_of_world(settings.cache.curriculum, t.captions, t.min_count, t.max_tokens, seed)
    fresh = build_text_encoder(
        len(tokenizer), d_model=t.d_model, d_ff=t.d_ff, num_layers=t.num_layers, num_heads=t.num_heads, seed=seed
    )
    _read(settings, tokenizer, fresh, say)
    return tokenizer, fresh


def _read(settings: VideoSettings, tokenizer: Any, encoder: nn.Module, say: Say) -> None:
    """Lets a fresh text encoder read captions of the first clips' scenes; see `training.reading`."""
    cache = settings.cache
    seeds = range(cache.first_seed, cache.first_seed + cache.start) if settings.reading.steps else ()
    scenes = [sample_spec(seed, cache.curriculum) for seed in seeds]

    def captions(batch: Sequence[SceneSpec], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return tokenize(tokenizer, draw_captions(batch, settings.captions, generator), tokenizer.model_max_length)

    learn_to_read(encoder, scenes, captions, settings.reading, settings.trainer.seed, say)


def load_autoencoder(folder: Path, device: str = "cpu") -> AutoencoderKLKinema:
    """The frozen autoencoder in a folder. Raises: ValueError when it holds none."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no autoencoder in {folder}; run stage1 of the recipe first")
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
    if kind != AutoencoderKLKinema.__name__:
        raise ValueError(
            f"clips of the world are encoded with an {AutoencoderKLKinema.__name__}, and {folder} holds an {kind}; "
            "train this model on clips of your own with data=FOLDER"
        )
    model: Any = AutoencoderKLKinema.from_pretrained(folder)
    frozen: AutoencoderKLKinema = model.to(device).eval().requires_grad_(False)
    return frozen


def _defaults(settings: VideoSettings, clip: Curriculum) -> dict[str, Any]:
    """What a request takes that does not say otherwise: the clips trained on, the preview's steps and weight."""
    return {
        **{name: getattr(clip, name) for name in ("num_frames", "height", "width", "fps")},
        "num_inference_steps": settings.preview.steps,
        "guidance_scale": settings.preview.guidance_scale,
    }
