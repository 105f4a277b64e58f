"""Training a LoRA on a folder of clips, from the folder to the file that `--lora` takes.

All of it lies in the folder of the run:

    latents/     the clips, encoded
    lora/        checkpoints, log, loss curve, sample sheets
    pytorch_lora_weights.safetensors     the finished LoRA, of averaged weights
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.training.checkpoint import checkpoints
from kinema.training.denoising import Denoising, LearningSettings, Predictor, choose
from kinema.training.export import load_averaged
from kinema.training.hardware import hardware
from kinema.training.lora_layers import LoraLayers, LoraLayersSettings, check_targets
from kinema.training.own_clips import OwnClips, OwnClipsSettings, open_own_clips
from kinema.training.preview import PreviewSettings
from kinema.training.processes import join
from kinema.training.trainer import Report, Trainer, TrainerSettings

PREVIEWS = 4  # captions of the clips that sample sheets show

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Section `lora` of a recipe."""

    trainer: TrainerSettings
    model: str = "mini"  # embedded model, model folder or hub id
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of the frozen weights; None: as for generating
    adapter: LoraLayersSettings = field(default_factory=LoraLayersSettings)
    clips: OwnClipsSettings = field(default_factory=OwnClipsSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    preview: PreviewSettings | None = None  # None: captions of the clips

    def __post_init__(self) -> None:
        if self.learning.train != "all" or self.learning.train_text:
            raise ValueError("train and train_text are for whole networks; a LoRA learns in adapter.targets")
        if self.learning.teacher is not None:
            raise ValueError("a LoRA learns from clips alone; set teacher to null")


def train_lora(settings: LoraSettings, data: Path, folder: Path, device: str | None = None, say: Say = print) -> Report:
    """Train (or resume) a LoRA on the clips in `data`; the file is written into `folder` when it is finished.

    What an interrupted training has learned is written by `export_lora`.
    """
    backbone: Any = load(settings.model, device=device, dtype=settings.dtype)
    check(settings, backbone)
    with join(backbone.device).in_turn():  # the first process encodes the clips
        clips = open_own_clips(backbone, data, folder / "latents", settings.clips, say)
    stage, adapter = lora_stage(settings, backbone, clips)
    say(f"the LoRA has {adapter.size:,} numbers")

    def write(report: Report) -> None:
        say(f"wrote {adapter.save(folder, make_card(settings, clips, report, hardware(backbone.device)))}")

    return Trainer(stage, settings.trainer, folder / "lora", backbone.device).run_and_write(write)


def check(settings: LoraSettings, backbone: Any) -> None:
    """Asked before clips are encoded. Raises: KinemaError or ValueError for a model that cannot be trained so."""
    choose(Predictor(backbone), settings.learning)
    if backbone.expert_boundary is not None and settings.trainer.batch_size > 1:
        raise KinemaError(
            f"model {backbone.name!r} has two networks for different noise levels, and a batch has several levels; "
            "set batch_size to 1 and accumulate to more"
        )
    check_targets(backbone, settings.adapter)


def lora_stage(settings: LoraSettings, backbone: Any, clips: OwnClips) -> tuple[Denoising, LoraLayers]:
    """The stage that trains a LoRA in a loaded model, and the LoRA.

    Raises: KinemaError or ValueError, one sentence, for a model that cannot be trained so.
    """
    check(settings, backbone)
    stage = Denoising(
        settings.learning,
        backbone,
        clips,
        batch_size=settings.trainer.batch_size,
        whole=backbone.latent_shape(1, clips.num_frames, 8, 8)[2],
        preview=settings.preview or _preview(backbone, clips),
    )
    adapter = LoraLayers(backbone, settings.adapter, settings.trainer.seed)
    stage.modules = adapter.modules  # of which the adapter's parameters alone need a gradient
    return stage, adapter


def _preview(backbone: Any, clips: OwnClips) -> PreviewSettings:
    """The first captions, at the size of most of the longest clips, guided as the model is."""
    size = max(clips.buckets, key=lambda bucket: (bucket.num_frames, len(clips.buckets[bucket])))
    return PreviewSettings(
        prompts=clips.captions[:PREVIEWS],
        guidance_scale=backbone.defaults.guidance_scale,
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
    )


def export_lora(settings: LoraSettings, folder: Path, out: Path, device: str | None = None) -> Path:
    """Write the averaged weights of the newest checkpoint of a training, which may go on meanwhile; gives the file.

    Raises: ValueError when there is no checkpoint, or one of other settings.
    """
    found = checkpoints(folder / "lora" / "checkpoints")
    if not found:
        raise ValueError(f"there is no checkpoint in {folder / 'lora'}; train first")
    backbone: Any = load(settings.model, device=device, dtype=settings.dtype)
    adapter = LoraLayers(backbone, settings.adapter, settings.trainer.seed)
    for name, module in adapter.modules.items():
        load_averaged(module, found[-1], name)
    return adapter.save(out, {"model": settings.model, "checkpoint": found[-1].name, "settings": asdict(settings)})


def make_card(settings: LoraSettings, clips: OwnClips, report: Report, trained_on: str) -> dict[str, Any]:
    """What a person should know of a LoRA."""
    return {
        "model": settings.model,
        "data": {"pieces": sum(map(len, clips.buckets.values())), "sizes": str(clips)},
        "training": {
            "steps": report.step,
            "clips_seen": report.clips,
            "seconds": round(report.seconds),
            "loss": round(report.loss, 5),
            "hardware": trained_on,
            "settings": asdict(settings),
        },
    }
