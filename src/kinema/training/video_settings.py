"""What a recipe says of a training of a video model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kinema.training.captions import CaptionSettings
from kinema.training.clips import LengthSettings
from kinema.training.denoising import EvaluationSettings, LearningSettings
from kinema.training.latents import CacheSettings
from kinema.training.lessons import Lesson, check_order
from kinema.training.networks import NetworkSettings
from kinema.training.own_clips import OwnClipsSettings
from kinema.training.preview import PreviewSettings
from kinema.training.reading import ReadingSettings
from kinema.training.trainer import TrainerSettings

SECTIONS = ("pictures", "temporal", "stage2", "finetune")  # of a recipe that train a video model, in their order


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

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} of the text encoder is {value}; use 1 or more")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model is {self.d_model}; use a multiple of num_heads ({self.num_heads})")


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
    data: str | None = None  # folder of a user's clips with captions, in the place of the world
    own_clips: OwnClipsSettings = field(default_factory=OwnClipsSettings)  # how they are cut
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
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
