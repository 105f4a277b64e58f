"""Training a video model on the world: what a recipe says of it, from the first clip to the model folder.

All of it lies in the folder of the run:

    latents/     the cache of encoded clips, which grows beside the training
    start/       the fresh model that the first section begins with
    SECTION/     checkpoints, log, loss curve, sample sheets
    model/       the finished model in diffusers layout (SECTION/model for a section that another one goes on from)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from kinema.backbones.load import embedded, load, locate
from kinema.models.autoencoder import AutoencoderKLKinema
from kinema.models.text import build_text_encoder, tokenize
from kinema.training.captions import CaptionSettings, draw_captions, tokenizer_of_world
from kinema.training.checkpoint import checkpoints
from kinema.training.clips import LengthSettings, WorldClips
from kinema.training.denoising import Denoising, LearningSettings
from kinema.training.export import export_model, load_averaged, write_model
from kinema.training.hardware import hardware
from kinema.training.latents import CacheSettings, Filler, LatentCache, fill_cache, open_cache
from kinema.training.lessons import Lesson, check_order
from kinema.training.networks import PIPELINES, NetworkSettings, build_network, build_scheduler
from kinema.training.preview import PreviewSettings
from kinema.training.reading import ReadingSettings, learn_to_read
from kinema.training.trainer import Report, Trainer, TrainerSettings
from kinema.world.spec import SceneSpec

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """Size of a fresh text encoder, and what its words are counted in."""

    d_model: int = 128
    d_ff: int = 256
    num_layers: int = 3
    num_heads: int = 4
    max_tokens: int = 48
    captions: int = 20_000  # captions the tokenizer takes its words from
    min_count: int = 2  # a word seen less often is spelled with pieces


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """A section of a recipe that trains a video model."""

    trainer: TrainerSettings
    network: NetworkSettings = field(default_factory=NetworkSettings)
    text: TextSettings | None = None  # a fresh text encoder; None takes the one of `parts_from`
    reading: ReadingSettings = field(default_factory=ReadingSettings)  # of the fresh text encoder
    parts_from: str = "mini"  # embedded model or folder: its text encoder and, where none is trained, its autoencoder
    start_from: str | None = None  # section, embedded model, folder or hub id whose weights it begins with
    cache: CacheSettings = field(default_factory=CacheSettings)
    lengths: LengthSettings = field(default_factory=LengthSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    lessons: tuple[Lesson, ...] = ()  # easier clips first; none: all clips from the start
    learning: LearningSettings = field(default_factory=LearningSettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    flow_shift: float = 3.0  # of the solver saved with a fresh model of kind wan
    snr_shift_scale: float = 1.0  # of the noise levels of a fresh model of kind cogvideox; above 1 is more noise

    def __post_init__(self) -> None:
        if min(self.flow_shift, self.snr_shift_scale) <= 0:
            raise ValueError("flow_shift and snr_shift_scale must be above 0")
        check_order(self.lessons)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a section of a recipe trains, and from what."""

    folder: Path  # of the run
    section: str
    autoencoder: Path | None = None  # None: the one of `parts_from`
    last: bool = True  # no section goes on from this one
    device: str = "cpu"

    @property
    def own(self) -> Path:
        return self.folder / self.section

    @property
    def model(self) -> Path:
        """Where the finished model goes."""
        return self.folder / "model" if self.last else self.own / "model"


def train_video_model(settings: VideoSettings, place: Place, say: Say = print) -> Report:
    """Train (or resume) a section, see the head of this file.

    The first `cache.start` clips are rendered before the training, the others beside it by another process.
    What an interrupted training has learned is not written to the model folder; `export_checkpoint` does it.
    """
    vae = place.autoencoder or locate(settings.parts_from) / "vae"
    cache = _open_cache(settings, place, vae, say)
    filler = None
    if len(cache) < settings.cache.clips:
        filler = Filler(cache.folder, settings.cache, vae, place.device)
    try:
        stage = build_stage(settings, place, cache, filler, say)
        trainer = Trainer(stage, settings.trainer, place.own, place.device)
        report = trainer.run()
    finally:
        if filler is not None:
            filler.stop()
    if not report.interrupted:
        training = {"steps": report.step, "clips_seen": report.clips, "seconds": round(report.seconds)}
        training |= {"hardware": hardware(place.device), "loss": round(report.loss, 5)}
        with trainer.ema.swapped_in():
            export_model(stage.backbone, place.model, make_card(settings, stage, training))
    return report


def export_checkpoint(settings: VideoSettings, place: Place, out: Path) -> Path:
    """Write the model of the newest checkpoint of a section, which may go on training meanwhile; gives `out`.

    Raises: ValueError when there is no checkpoint, or one of other settings.
    """
    found = checkpoints(place.own / "checkpoints")
    if not found:
        raise ValueError(f"there is no checkpoint in {place.own}; train first")
    cache = LatentCache(place.folder / "latents", most=1)
    stage = build_stage(settings, place, cache, None, lambda _: None, teach=False)
    for name, module in stage.modules.items():
        load_averaged(module, found[-1], name)
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    clips = state["step"] * settings.trainer.batch_size * settings.trainer.accumulate
    training = {"steps": state["step"], "clips_seen": clips, "seconds": round(state["seconds"])}
    # Of the training; the export may run elsewhere, or on fewer threads.
    training["hardware"] = state.get("hardware") or hardware(place.device)
    card = make_card(settings, stage, training)
    card["training"]["cached_clips"] = LatentCache.count(place.folder / "latents")
    return export_model(stage.backbone, out, card)


def build_stage(
    settings: VideoSettings, place: Place, cache: LatentCache, filler: Filler | None, say: Say, teach: bool = True
) -> Denoising:
    """The stage of a section, with the weights that it begins with."""
    s = settings
    clips = WorldClips(cache, s.cache.clips, lengths=s.lengths, captions=s.captions, lessons=s.lessons, filler=filler)
    backbone = load(_start(s, place, cache, say), device=place.device, dtype="float32")
    teacher = None
    if s.learning.teacher is not None and teach:
        teacher = load(s.learning.teacher.model, device=place.device, dtype="float32")
    return Denoising(
        s.learning,
        backbone,
        clips,
        batch_size=s.trainer.batch_size,
        whole=clips.shape[1],
        preview=s.preview,
        teacher=teacher,
    )


def _open_cache(settings: VideoSettings, place: Place, vae: Path, say: Say) -> LatentCache:
    folder, cache = place.folder / "latents", settings.cache
    open_cache(folder, cache, vae)
    if LatentCache.count(folder) < cache.start:
        say(f"rendering the first {cache.start} clips into {folder}")
        fill_cache(
            folder,
            cache,
            _autoencoder(vae, place.device),
            until=cache.start,
            device=place.device,
            on_shard=lambda clips: say(f"{clips} clips rendered"),
        )
    return LatentCache(folder)


def _autoencoder(folder: Path, device: str = "cpu") -> AutoencoderKLKinema:
    """Raises: ValueError when the folder holds none."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"there is no autoencoder in {folder}; run stage1 of the recipe first")
    model: Any = AutoencoderKLKinema.from_pretrained(folder)
    frozen: AutoencoderKLKinema = model.to(device).eval().requires_grad_(False)
    return frozen


# -- the model that a training begins with -----------------------------------------------------------------------


def _start(settings: VideoSettings, place: Place, cache: LatentCache, say: Say) -> Path:
    """The folder of the model that a section begins with; a fresh one is made the first time."""
    if settings.start_from is not None:
        earlier = place.folder / settings.start_from / "model"
        return earlier if earlier.is_dir() else locate(settings.start_from)
    start = place.folder / "start"
    if not start.is_dir():
        _write_fresh(settings, place, cache, start, say)
    return start


def _write_fresh(settings: VideoSettings, place: Place, cache: LatentCache, out: Path, say: Say) -> None:
    """A fresh network with a fresh text encoder, which has learned to read, or the one of another model."""
    s = settings
    channels, *cells = cache.shards[0].shape[1:]
    tokenizer, encoder = _text(s, cache, say)
    autoencoder = _autoencoder(place.autoencoder or locate(s.parts_from) / "vae")
    length, seed = tokenizer.model_max_length, s.trainer.seed
    network = build_network(s.network, channels, encoder.config.d_model, length, tuple(cells), seed + 1)
    pipeline, name = PIPELINES[s.network.kind]
    if s.network.kind == "wan":
        index = {"expand_timesteps": True, "boundary_ratio": None, "transformer_2": [None, None]}
    else:
        index = {"motion_adapter": [None, None]} if s.network.kind == "unet" else {}
    frames, rows, columns = cells
    write_model(
        out,
        pipeline,
        networks={name: network, "text_encoder": encoder, "vae": autoencoder},
        tokenizer=tokenizer,
        scheduler=build_scheduler(s.network.kind, s.flow_shift, s.snr_shift_scale),
        card={"defaults": _defaults(s, frames, rows, columns)},
        index=index,
        dtype=torch.float32,
    )


def _text(settings: VideoSettings, cache: LatentCache, say: Say) -> tuple[Any, Any]:
    """Tokenizer and text encoder of a fresh model."""
    from transformers import UMT5EncoderModel

    if settings.text is None:
        folder = locate(settings.parts_from)
        kind: Any = UMT5EncoderModel
        return AutoTokenizer.from_pretrained(folder / "tokenizer"), kind.from_pretrained(folder / "text_encoder")
    t, seed = settings.text, settings.trainer.seed
    tokenizer = tokenizer_of_world(settings.cache.curriculum, t.captions, t.min_count, t.max_tokens, seed)
    encoder = build_text_encoder(
        len(tokenizer), d_model=t.d_model, d_ff=t.d_ff, num_layers=t.num_layers, num_heads=t.num_heads, seed=seed
    )
    _read(settings, cache, tokenizer, encoder, say)
    return tokenizer, encoder


def _read(settings: VideoSettings, cache: LatentCache, tokenizer: Any, encoder: nn.Module, say: Say) -> None:
    """Lets a fresh text encoder read captions of the cache's scenes; see `training.reading`."""
    scenes = [cache.scene(i) for i in range(len(cache))] if settings.reading.steps else []

    def captions(batch: Sequence[SceneSpec], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return tokenize(tokenizer, draw_captions(batch, settings.captions, generator), tokenizer.model_max_length)

    learn_to_read(encoder, scenes, captions, settings.reading, settings.trainer.seed, say)


def _defaults(settings: VideoSettings, frames: int, rows: int, columns: int) -> dict[str, Any]:
    """What a request takes that does not say otherwise: the clips trained on, the preview's steps and weight."""
    return {
        "num_frames": 4 * (frames - 1) + 1,
        "height": 16 * rows,
        "width": 16 * columns,
        "fps": 8,
        "num_inference_steps": settings.preview.steps,
        "guidance_scale": settings.preview.guidance_scale,
    }


# -- what is told of it ------------------------------------------------------------------------------------------


def make_card(settings: VideoSettings, stage: Denoising, training: dict[str, Any]) -> dict[str, Any]:
    """What a person should know of the model: data, training, hardware; scores are added by whoever measures."""
    s, backbone, clips = settings, stage.backbone, stage.clips
    before = backbone.folder.card
    _, frames, rows, columns = clips.shape  # type: ignore[attr-defined]
    defaults = _defaults(s, frames, rows, columns)
    given = s.learning.given_share > 0
    parts = {"network": stage.student.network, "text_encoder": stage.student.text_encoder, "vae": backbone.vae}
    earlier = before.get("training", {}).get("parts", []) if s.start_from is not None else []
    told = {key: value for key, value in before.get("training", {}).items() if key not in ("parts", "settings")}
    if s.start_from is not None and told:
        earlier = [*earlier, told]
    return {
        "name": backbone.name if backbone.name in embedded() else "",
        "what": WHAT.get(backbone.folder.pipeline, backbone.folder.pipeline),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "data": {
            "world": f"kinema.world, curriculum {s.cache.curriculum!r}, training split",
            **{name: defaults[name] for name in ("num_frames", "height", "width", "fps")},
            "seeds": [s.cache.first_seed, s.cache.first_seed + s.cache.clips],
        },
        "training": {
            "objective": stage.objective.kind,
            **training,
            "cached_clips": len(clips.cache),  # type: ignore[attr-defined]
            "torch": torch.__version__,
            "parts": earlier,
            "settings": asdict(s),
        },
        "defaults": defaults,
        **({"takes_last_image": True} if given else {}),  # clips with given first and last frames were in the training
        "text": {"max_sequence_length": _length(stage), "words": _words(stage)},
        "scores": {},
    }


WHAT = {
    "WanPipeline": "text to video, from given frames too; the Wan 2.2 TI2V architecture at a small size",
    "CogVideoXPipeline": "text to video; joint attention of text and video, the CogVideoX architecture at a small size",
    "AnimateDiffPipeline": "text to video; a UNet with spatial and temporal attention apart, as AnimateDiff's",
}


def _tokenizer(stage: Denoising) -> Any:
    backbone = stage.backbone
    return getattr(backbone, "tokenizer", None) or backbone.pipeline.tokenizer


def _length(stage: Denoising) -> int:
    return int(_tokenizer(stage).model_max_length)


def _words(stage: Denoising) -> int:
    return len(_tokenizer(stage))
