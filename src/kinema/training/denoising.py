"""The stage that trains a video model: any backbone learns the velocity of noised clips.

The network is called through its backbone (`backbone.predict`), as the sampling loop calls it, so that every family
trains with the same few lines, and what was trained is what is sampled. Every micro-batch has one size and length and
is either without given frames, one time for the whole clip, or has clean ones and a time for each frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinema.backbones.compiling import has_compiler
from kinema.backbones.protocol import Conditions
from kinema.core.errors import KinemaError
from kinema.core.path import VariancePreserving
from kinema.request import Request
from kinema.training.clips import Clips
from kinema.training.evaluating import judge_scores
from kinema.training.objective import (
    FLOW,
    GivenSettings,
    Objective,
    ObjectiveSettings,
    bucket_losses,
    frame_times,
    given_frames,
)
from kinema.training.preview import PreviewSettings, contact_sheet, generate

Compile = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """A finished model whose velocities stand in for the noisy ones at first.

    The expected velocity has the same gradient as the sampled one with far less noise in it, so that a small network
    gets in minutes where it takes hours to by itself; it cannot pass its teacher that way.
    """

    model: str = "mini"  # embedded model, model folder or hub id, with the same autoencoder
    until: int = 50_000  # clips seen when it leaves
    share: float = 1.0  # of the target; the rest is the sampled velocity, 0..1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.until < 0:
            raise ValueError("share of a teacher must be above 0 up to 1, and until 0 or more")


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """What is learned from each clip, and how the network computes it."""

    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    given_share: float = 0.0  # of the micro-batches of more than a latent frame that have clean frames, 0..1
    given: GivenSettings = field(default_factory=GivenSettings)
    caption_dropout: float = 0.1  # share of clips that see the empty prompt, 0..1
    teacher: TeacherSettings | None = None
    train: Literal["all", "spatial", "temporal"] = "all"  # which layers; the other two are for networks of kind unet
    train_text: bool = False  # the text encoder learns, too
    compile: Compile = "never"  # torch.compile; auto: where a compiler is found
    plain_attention: bool = False  # the softmax written out: pays on a CPU with few tokens

    def __post_init__(self) -> None:
        for name in ("given_share", "caption_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 to 1")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What the judge reads on the way, where the trainer is told to evaluate."""

    prompts: int = 24  # the first of the fixed list of held-out combinations
    steps: int = 10  # of the solver
    seed: int = 7


class Predictor:
    """A backbone as a function of noised latents, times and prompts."""

    def __init__(self, backbone: Any, learns_text: bool = False, fps: float | None = None) -> None:
        """fps: of the clips, which some networks are told; None for the model's own."""
        if backbone.needs_image or not backbone.reads_text:
            raise ValueError(f"model {backbone.name!r} wants more than noise and a prompt; train a text to video model")
        if backbone.defaults.sound_guidance_scale is not None:
            raise KinemaError(
                f"model {backbone.name!r} makes sound along with its video, which the clips do not tell of"
            )
        self.backbone, self.learns_text, self.fps = backbone, learns_text, fps
        self._conditions: dict[tuple[int, ...], Conditions] = {}

    @property
    def network(self) -> Any:
        """What predicts: the transformer, or the UNet."""
        return getattr(self.backbone, "unet", None) or self.backbone.transformer

    @property
    def part(self) -> str:
        """What the model's folder calls it."""
        return "unet" if self.network is getattr(self.backbone, "unet", None) else "transformer"

    @property
    def text_encoder(self) -> Any:
        return getattr(self.backbone, "text_encoder", None) or self.backbone.pipeline.text_encoder

    def velocity(self, x: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
        """At x (B, C, T, H, W) and times t, (B,) or (B, T)."""
        conditions = self.of_shape(x)
        if self.learns_text:
            text = self.backbone.text_inputs(prompts)
            if torch.is_grad_enabled() and not any(each.requires_grad for each in text.values()):
                name = self.backbone.name
                raise ValueError(f"model {name!r} reads prompts without gradients; set train_text to false")
        else:
            text = self.backbone.encode_texts(prompts, conditions)
        inputs = {**self.backbone.inputs(conditions, frozenset()), **text}
        v: Tensor = self.backbone.predict(x, t, inputs, conditions)
        return v

    def of_shape(self, x: Tensor) -> Conditions:
        """Conditions for latents of the shape of x, whose prompt is nobody's."""
        shape = tuple(x.shape)
        if shape not in self._conditions:
            batch, _, frames, rows, columns = shape
            b = self.backbone
            one = Request(
                prompt="a video",
                num_frames=b.frames_per_latent * (frames - b.padding - 1) + 1,
                height=rows * b.pixels_per_cell,
                width=columns * b.pixels_per_cell,
                fps=self.fps,
                num_inference_steps=1,
            )
            found = b.prepare([one] * batch)
            found.exact = False
            self._conditions[shape] = found
        return self._conditions[shape]


class Denoising:
    """The stage a `Trainer` trains: see the head of this file."""

    def __init__(
        self,
        settings: LearningSettings,
        backbone: Any,
        clips: Clips,
        *,
        batch_size: int,
        whole: int,
        preview: PreviewSettings | None = None,
        evaluation: EvaluationSettings | None = None,
        teacher: Any = None,
    ) -> None:
        """whole: latent frames of the longest clips. teacher: the backbone of `settings.teacher`."""
        self.settings, self.clips, self.size, self.whole = settings, clips, batch_size, whole
        self.backbone, self.preview = backbone, preview or PreviewSettings()
        self.evaluation = evaluation or EvaluationSettings()
        self.student = Predictor(backbone, settings.train_text, getattr(clips, "fps", None))
        self.teacher = Predictor(teacher) if teacher is not None else None
        path = getattr(backbone, "path", None)
        kind = {"epsilon": "epsilon", "v_prediction": "v"}.get(getattr(path, "prediction", ""), "flow")
        clock = backbone.clock if isinstance(path, VariancePreserving) else None
        self.objective = Objective(settings.objective, kind, clock)
        self.modules: Mapping[str, nn.Module] = choose(self.student, settings)
        self.compiled = settings.compile == "always" or (settings.compile == "auto" and has_compiler())
        if self.compiled:
            for predictor in (self.student, self.teacher):
                if predictor is not None:
                    predictor.network.compile(dynamic=False)

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Any]:
        """Latents and noise (B, C, T, H, W), times (B,), given frames (B, T) bool, prompts, whether a teacher helps.

        weight (B,): of a clip in the mean of the loss, by its frames that are not given; 1 on the mean.
        """
        s = self.settings
        latents, prompts = self.clips.draw(step, self.size, generator)
        frames = latents.shape[2]
        given = torch.zeros(self.size, frames, dtype=torch.bool)
        if frames > 1 and float(torch.rand(1, generator=generator)) < s.given_share:
            given = given_frames(s.given, self.size, frames, generator)
        dropped = torch.rand(self.size, generator=generator) < s.caption_dropout
        learned = (~given).sum(1).float()
        taught = s.teacher is not None and step * self.size < s.teacher.until and not bool(given.any())
        return {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=generator),
            "t": self.objective.times(self.size, generator),
            "given": given,
            "weight": learned / learned.mean(),
            "prompts": ["" if drop else prompt for prompt, drop in zip(prompts, dropped.tolist(), strict=True)],
            "taught": torch.full((self.size,), taught),
        }

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The objective's loss, and for each fifth of the time the one without a teacher."""
        x0, noise, given = batch["latents"], batch["noise"], batch["given"]
        times = frame_times(batch["t"], given)
        t = times if bool(given.any()) else batch["t"]
        x = FLOW.add_noise(x0, noise, t)
        sampled = FLOW.velocity(x0, noise)
        with self._computing(x.shape[2]):
            velocity = self.student.velocity(x, t, batch["prompts"])
            target = sampled
            teacher = self.settings.teacher
            if self.teacher is not None and teacher is not None and bool(batch["taught"].any()):
                with torch.no_grad():
                    expected = self.teacher.velocity(x, t, batch["prompts"]).float()
                target = torch.lerp(sampled, expected, teacher.share)
        learned = self.objective.losses(velocity, target, times)
        plain = self.objective.losses(velocity.detach(), sampled, times)
        return (learned * batch["weight"]).mean(), dict(bucket_losses(plain, batch["t"]))

    @contextmanager
    def _computing(self, frames: int) -> Iterator[None]:
        """How the networks compute. Each length is compiled anew, which takes a minute: worth it for whole clips and
        pictures."""
        plain = self.settings.plain_attention
        often = not self.compiled or frames in (1, self.whole)
        with torch.compiler.set_stance("default" if often else "force_eager"):
            if plain:
                with sdpa_kernel(SDPBackend.MATH):
                    yield
            else:
                yield

    def evaluate(self) -> dict[str, float]:
        """What the judge reads in clips of fixed prompts; see `training.evaluating`."""
        s = self.evaluation
        with torch.compiler.set_stance("force_eager"):
            return judge_scores(self.backbone, s.prompts, s.seed, s.steps)

    def sheet(self, path: Path) -> None:
        """A row for each prompt of the preview settings."""
        s = self.preview
        with torch.compiler.set_stance("force_eager"):
            frames = generate(self.backbone, s)
        contact_sheet(path, frames, s.prompts)


def choose(predictor: Predictor, settings: LearningSettings) -> dict[str, nn.Module]:
    """The networks that learn, by their names in the model's folder, with gradients where a layer learns.

    Raises: ValueError when the network has no layers of the kind asked for, or cannot be given clean frames.
    """
    network, backbone = predictor.network, predictor.backbone
    if settings.given_share and not backbone.time_per_frame:
        raise ValueError(f"model {backbone.name!r} has one time for the whole clip; set given_share to 0")
    temporal = {id(p) for key, p in network.named_parameters() if "motion_modules" in key}
    if settings.train != "all" and not temporal:
        raise ValueError(f"train is {settings.train!r}, and the network has no layers of its own for time; use all")
    for p in network.parameters():
        p.requires_grad_(settings.train == "all" or (id(p) in temporal) == (settings.train == "temporal"))
    modules: dict[str, nn.Module] = {predictor.part: network}
    if settings.train_text:
        modules["text_encoder"] = predictor.text_encoder.requires_grad_(True)
    return modules
