"""Training a video model: what a recipe says of it, from the first clip to the model folder.

All of it lies in the folder of the run:

    latents/     encoded clips of the world; the cache grows beside the training
    clips/       encoded clips of the user's own
    start/       the fresh model that the first section begins with
    SECTION/     checkpoints, log, loss curve, sample sheets
    model/       the finished model in diffusers layout (SECTION/model for a section that another one goes on from)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinema.backbones.load import load, locate
from kinema.training.card import make_card
from kinema.training.checkpoint import checkpoints
from kinema.training.clips import WorldClips
from kinema.training.denoising import Denoising, LearningSettings, Predictor, choose
from kinema.training.export import export_model, load_averaged
from kinema.training.hardware import hardware
from kinema.training.latents import Filler, LatentCache, fill_cache, open_cache
from kinema.training.own_clips import OwnClips, open_own_clips
from kinema.training.processes import join
from kinema.training.start import load_autoencoder, model_to_begin_with
from kinema.training.trainer import Report, Trainer
from kinema.training.video_settings import Place, VideoSettings

Say = Callable[[str], None]


def train_video_model(settings: VideoSettings, place: Place, say: Say = print) -> Report:
    """Train (or resume) a section, see the head of this file.

    What an interrupted training has learned is not written to the model folder; `export_checkpoint` does it.
    """
    with join(place.device).in_turn():
        start = model_to_begin_with(settings, place, say)
    backbone = load(start, device=place.device, dtype="float32")
    check_learning(settings.learning, backbone)
    with open_clips(settings, place, backbone, say) as clips:
        stage = build_stage(settings, place, backbone, clips)
        if stage.compiled:
            say("compiling before the first step, which takes a minute or two")

        def write(report: Report) -> None:
            training: dict[str, Any] = {"steps": report.step, "clips_seen": report.clips}
            training |= {"seconds": round(report.seconds), "hardware": hardware(place.device)}
            card = make_card(settings, place, stage, {**training, "loss": round(report.loss, 5)})
            export_model(backbone, place.model, stage.modules, card)

        return Trainer(stage, settings.trainer, place.own, place.device).run_and_write(write)


def export_checkpoint(settings: VideoSettings, place: Place, out: Path, say: Say = print) -> Path:
    """Write the model of the newest checkpoint of a section, which may go on training meanwhile; gives `out`.

    Raises: ValueError when there is no checkpoint, or one of other settings.
    """
    found = checkpoints(place.own / "checkpoints")
    if not found:
        raise ValueError(f"there is no checkpoint in {place.own}; train first")
    backbone = load(model_to_begin_with(settings, place, say), device=place.device, dtype="float32")
    with open_clips(settings, place, backbone, say, most=1) as clips:
        stage = build_stage(settings, place, backbone, clips, teach=False)
    for name, module in stage.modules.items():
        load_averaged(module, found[-1], name)
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    seen = state["step"] * settings.trainer.batch_size * settings.trainer.accumulate
    training: dict[str, Any] = {"steps": state["step"], "clips_seen": seen, "seconds": round(state["seconds"])}
    # Of the training; the export may run elsewhere, or on fewer threads.
    training["hardware"] = state.get("hardware") or hardware(place.device)
    return export_model(backbone, out, stage.modules, make_card(settings, place, stage, training))


def check_learning(settings: LearningSettings, backbone: Any) -> None:
    """Raises: ValueError, before clips are drawn, when the model cannot learn so or a teacher has other latents."""
    choose(Predictor(backbone, settings.train_text), settings)
    if backbone.expert_boundary is not None:
        raise ValueError(f"model {backbone.name!r} has two networks for different noise levels; train a LoRA instead")
    if settings.teacher is not None and latents_of(locate(settings.teacher.model)) != latents_of(backbone.folder.path):
        raise ValueError(
            f"the teacher {settings.teacher.model!r} has another autoencoder than the model it teaches; "
            "take a model with the same one, or set teacher to null"
        )


def latents_of(model: Path) -> dict[str, Any]:
    """What the config of a model's autoencoder says of its latents; two that were trained apart differ in it."""
    config = json.loads((model / "vae" / "config.json").read_text(encoding="utf-8"))
    names = ("_class_name", "z_dim", "latent_channels", "latents_mean", "latents_std", "scaling_factor", "shift_factor")
    return {name: config.get(name) for name in names}


def build_stage(
    settings: VideoSettings, place: Place, backbone: Any, clips: WorldClips | OwnClips, teach: bool = True
) -> Denoising:
    """The stage of a section. teach: with its teacher, where it has one."""
    s, teacher = settings, None
    if s.network.gradient_checkpointing:  # no part of a model's folder
        Predictor(backbone).network.enable_gradient_checkpointing()
    if s.learning.teacher is not None and teach:
        teacher = load(s.learning.teacher.model, device=place.device, dtype="float32")
    d = backbone.defaults
    return Denoising(
        s.learning,
        backbone,
        clips,
        batch_size=s.trainer.batch_size,
        whole=backbone.latent_shape(1, clips.num_frames, d.height, d.width)[2],
        preview=s.preview,
        evaluation=s.evaluation,
        teacher=teacher,
    )


@contextmanager
def open_clips(
    settings: VideoSettings, place: Place, backbone: Any, say: Say, most: int | None = None
) -> Iterator[WorldClips | OwnClips]:
    """The clips of a section; inside the `with`, missing ones of the world are rendered by another process.

    The first `cache.start` of them are rendered before. most: shards of the world to read at most, and then none is
    rendered. Several processes begin when all clips are there, as each has to draw the same ones.
    """
    s, processes = settings, join(place.device)
    if s.data is not None:
        with processes.in_turn():
            clips = open_own_clips(backbone, Path(s.data), place.folder / "clips", s.own_clips, say)
        yield clips
        return
    vae, folder = backbone.folder.path / "vae", place.folder / "latents"
    load_autoencoder(vae)  # refuses one that the world is not encoded with
    until = s.cache.start if processes.count == 1 else s.cache.clips
    with processes.in_turn():
        open_cache(folder, s.cache, vae)
        if LatentCache.count(folder) < until and most is None:
            say(f"rendering the first {until} clips into {folder}")
            fill_cache(
                folder,
                s.cache,
                load_autoencoder(vae, place.device),
                until=until,
                device=place.device,
                on_shard=lambda clips: say(f"{clips} clips rendered"),
            )
    cache = LatentCache(folder, most)
    filler = None
    if len(cache) < s.cache.clips and most is None:
        filler = Filler(folder, s.cache, vae, place.device)
    try:
        yield WorldClips(cache, s.cache.clips, lengths=s.lengths, captions=s.captions, lessons=s.lessons, filler=filler)
    finally:
        if filler is not None:
            filler.stop()
