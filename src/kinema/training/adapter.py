"""Training an adapter: a control of its own beside a frozen model, from clips to the folder that the technique reads.

All of it lies in the folder of the run:

    clips/       clips with what the control is told of them, encoded
    adapter/     checkpoints, log, loss curve, sample sheets
    NAME/        the finished adapter, of averaged weights (`core/adapter.py`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinema.backbones import watched
from kinema.backbones.load import load
from kinema.core.adapter import Adapter, AdapterNetwork, ModelFace, Opened, read_adapter, write_adapter
from kinema.core.attention import Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.registry import find, techniques
from kinema.core.technique import Step
from kinema.core.windows import Window
from kinema.files import make_folder, replacing
from kinema.training.captions import CaptionSettings
from kinema.training.checkpoint import checkpoints
from kinema.training.controlled import ControlledClips, ControlledSettings, open_controlled
from kinema.training.denoising import Predictor
from kinema.training.export import load_averaged
from kinema.training.hardware import hardware
from kinema.training.objective import (
    FLOW,
    GivenSettings,
    Objective,
    ObjectiveSettings,
    bucket_losses,
    frame_times,
    given_frames,
)
from kinema.training.preview import contact_sheet
from kinema.training.processes import join
from kinema.training.signals import SIGNALS
from kinema.training.trainer import Report, Trainer, TrainerSettings

Say = Callable[[str], None]
OWN = "own"


@dataclass(frozen=True, kw_only=True)
class ControlLearning:
    """What is learned from each clip."""

    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    condition_dropout: float = 0.1  # share of clips that are told nothing, 0..1
    caption_dropout: float = 0.1  # share of clips that see the empty prompt, 0..1
    image_share: float = 0.0  # of the micro-batches that are of single latent frames, 0..1
    given_share: float = 0.0  # of the micro-batches that have clean frames, 0..1; for models with a time a frame
    given: GivenSettings = field(default_factory=GivenSettings)  # which ones
    plain_attention: bool = False  # the softmax written out: pays on a CPU with few tokens

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "caption_dropout", "given_share", "image_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A row of the sample sheets."""

    prompt: str
    options: dict[str, Any]  # fields of the technique


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Section `adapter` of a recipe."""

    name: str  # of the technique
    trainer: TrainerSettings
    model: str = "mini"  # embedded model, model folder or hub id
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of the frozen weights; None: as for generating
    network: dict[str, Any] = field(default_factory=dict)  # its sizes, where they are not the usual ones
    start_from: str | None = (
        None  # folder of an adapter to go on from, "own": the one that comes with the model; None: anew
    )
    clips: ControlledSettings = field(default_factory=ControlledSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    learning: ControlLearning = field(default_factory=ControlLearning)
    preview: tuple[Shown, ...] = ()
    steps: int = 20  # of the solver, for the sample sheets

    def __post_init__(self) -> None:
        kind(self.name)


def kind(name: str) -> type[Adapter]:
    """The class of an adapter. Raises: KinemaError for a technique that is not trained."""
    cls = find(name).cls
    if not issubclass(cls, Adapter):
        known = ", ".join(n for n, entry in techniques().items() if issubclass(entry.cls, Adapter))
        raise KinemaError(f"{name} is not trained; adapters are {known}")
    return cls


def train_adapter(
    settings: AdapterSettings, folder: Path, device: str | None = None, data: Path | None = None, say: Say = print
) -> Report:
    """Train (or resume) an adapter; it is written into `folder`/NAME when it is finished.

    data: a folder of clips with captions in the place of the world.
    Raises: KinemaError or ValueError, one sentence, for a model that takes none, or clips that do not tell enough.
    """
    backbone: Any = load(settings.model, device=device, dtype=settings.dtype)
    network, sizes = fresh(settings, backbone)
    condition = kind(settings.name).condition
    with join(backbone.device).in_turn():
        clips = open_controlled(
            backbone, folder / "clips", condition, SIGNALS[condition], settings.clips, settings.captions, data, say
        )
    say(f"the adapter has {sum(p.numel() for p in network.parameters()):,} numbers")
    with AdapterStage(settings, backbone, network, sizes, clips) as stage:

        def write(report: Report) -> None:
            card = make_card(settings, stage, report.step, report.clips, report.seconds, data)
            say(f"wrote {stage.write(folder / settings.name, card)}")

        return Trainer(stage, settings.trainer, folder / "adapter", backbone.device).run_and_write(write)


def fresh(settings: AdapterSettings, backbone: Any) -> tuple[AdapterNetwork, dict[str, Any]]:
    """The network that a training begins with, and its sizes.

    Raises: ValueError for sizes that cannot be; KinemaError for an adapter to start from that is none for the model.
    """
    text = backbone.encode_texts([""])["text"].shape[-1] if backbone.reads_text else 0
    cls, face = kind(settings.name), dataclasses.replace(ModelFace.of(backbone), text=int(text))
    sizes = {**cls.network.sizes(face), **settings.network}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.trainer.seed)
        try:
            network = cls.network(face, **sizes).to(backbone.device)
        except TypeError as error:
            raise ValueError(f"network of adapter {settings.name!r}: {error}") from error
    if settings.start_from is not None:
        given = read_adapter(cls(adapter=None if settings.start_from == OWN else settings.start_from), backbone)
        try:
            network.load_state_dict(given.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"start_from: the adapter in {settings.start_from!r} has other sizes than {sizes}"
            ) from error
    return network, sizes


def export_adapter(settings: AdapterSettings, folder: Path, out: Path, device: str | None = None) -> Path:
    """Write the averaged weights of the newest checkpoint of a training, which may go on meanwhile; gives `out`.

    Raises: ValueError when there is no checkpoint, or one of other settings.
    """
    import json

    found = checkpoints(folder / "adapter" / "checkpoints")
    if not found:
        raise ValueError(f"there is no checkpoint in {folder / 'adapter'}; train first")
    backbone: Any = load(settings.model, device=device, dtype=settings.dtype)
    network, sizes = fresh(settings, backbone)
    load_averaged(network, found[-1], settings.name)
    state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    seen = state["step"] * settings.trainer.batch_size * settings.trainer.accumulate
    with AdapterStage(settings, backbone, network, sizes, None) as stage:
        return stage.write(out, make_card(settings, stage, state["step"], seen, state["seconds"], None))


class AdapterStage:
    """The stage a `Trainer` trains: the frozen model predicts with the adapter between its blocks.

    The network is called as in sampling, with the technique itself in its hooks. Inside the `with` the model is open.
    """

    def __init__(
        self,
        settings: AdapterSettings,
        backbone: Any,
        network: AdapterNetwork,
        sizes: Mapping[str, Any],
        clips: ControlledClips | None,
    ) -> None:
        self.settings, self.backbone, self.network, self.sizes, self.clips = settings, backbone, network, sizes, clips
        self.technique = kind(settings.name)()
        self.predictor = Predictor(backbone)
        if settings.learning.given_share and not backbone.time_per_frame:
            raise ValueError(f"model {backbone.name!r} has one time for the whole clip; set given_share to 0")
        self.predictor.network.requires_grad_(False)
        path = getattr(backbone, "path", None)
        predicts = {"epsilon": "epsilon", "v_prediction": "v"}.get(getattr(path, "prediction", ""), "flow")
        self.objective = Objective(settings.learning.objective, predicts, getattr(backbone, "clock", None))
        self.modules: Mapping[str, nn.Module] = {settings.name: network}
        self._open = ExitStack()

    def __enter__(self) -> AdapterStage:
        self._open.enter_context(self.backbone.tapped(True))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Any]:
        """Latents and noise (B, C, T, H, W), times (B,), prompts, what the network is told and who is (B,) bool.

        known: frames that are given, (B, T) bool; part: which latent frames of their clips these are, (B, 2).
        """
        s, size = self.settings.learning, self.settings.trainer.batch_size
        assert self.clips is not None
        latents, prompts, drawn = self.clips.draw(step, size, generator)
        first, stop = 0, latents.shape[2]
        if float(torch.rand(1, generator=generator)) < s.image_share:
            one = self.backbone.patch[0]
            first = one * int(torch.randint(stop // one, (1,), generator=generator))
            stop = first + one
        latents = latents[:, :, first:stop]
        known = torch.zeros(size, latents.shape[2], dtype=torch.bool)
        if latents.shape[2] > 1 and float(torch.rand(1, generator=generator)) < s.given_share:
            known = given_frames(s.given, size, latents.shape[2], generator)
        unread = torch.rand(size, generator=generator) < s.caption_dropout
        told = torch.rand(size, generator=generator) >= s.condition_dropout
        return {
            "latents": latents,
            "noise": torch.randn(latents.shape, generator=generator),
            "t": self.objective.times(size, generator),
            "told": told,
            "known": known,
            "part": torch.tensor([[first, stop]]).expand(size, -1),
            "prompts": ["" if drop else prompt for prompt, drop in zip(prompts, unread.tolist(), strict=True)],
            **{f"drawn.{name}": u for name, u in drawn.items()},
        }

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The objective's loss, also for each fifth of the time."""
        x0, noise, known = batch["latents"], batch["noise"], batch["known"]
        times = frame_times(batch["t"], known)
        t = times if bool(known.any()) else batch["t"]
        x = FLOW.add_noise(x0, noise, t)
        drawn = {name.removeprefix("drawn."): u for name, u in batch.items() if name.startswith("drawn.")}
        given = SIGNALS[self.technique.condition].given(drawn, self.backbone)
        velocity = self.velocity(x, t, batch["prompts"], given, batch["told"], Window(*batch["part"][0].tolist()))
        losses = self.objective.losses(velocity, FLOW.velocity(x0, noise), times)
        return losses.mean(), dict(bucket_losses(losses.detach(), batch["t"]))

    def velocity(
        self, x: Tensor, t: Tensor, prompts: list[str], given: Mapping[str, Tensor], told: Tensor, part: Window
    ) -> Tensor:
        """dx/dt at x and t, (B,) or (B, T), of parts of clips; `told` (B,) says which of them have the condition."""
        b, technique = self.backbone, self.technique
        conditions = self.predictor.of_shape(x)
        inputs = {**b.inputs(conditions, frozenset()), **b.encode_texts(prompts, conditions)}
        run: Any = SimpleNamespace(state={technique: Opened(self.network, given)}, conditions=conditions)
        taps = Taps(Step(index=0, count=1, t=technique.noise_range[0], t_next=0.0, run=run, window=part), [technique])
        left = [frozenset[str]() if one else technique.provides for one in told.tolist()]
        plain = self.settings.learning.plain_attention
        token = current_taps.set(taps)
        try:
            with sdpa_kernel(SDPBackend.MATH) if plain else ExitStack():
                return watched.velocity(b, taps, x, t, inputs, conditions, left)
        finally:
            current_taps.reset(token)

    def write(self, folder: Path, card: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16) -> Path:
        """The network as it is now, in a folder that appears as a whole."""
        make_folder(folder.parent)
        with replacing(folder) as temporary:
            temporary.mkdir()
            write_adapter(temporary, self.settings.name, self.network, self.sizes, card, dtype)
        return folder

    def sheet(self, path: Path) -> None:
        """A row for each prompt of the preview."""
        from kinema.core.loop import sample
        from kinema.guidance.cfg import plain_guidance
        from kinema.guidance.multi_cfg import joined
        from kinema.request import Request

        s, rows = self.settings, []
        with TemporaryDirectory() as place:
            folder = self.write(Path(place) / s.name, {})
            for shown in s.preview:
                request = Request(prompt=shown.prompt, seed=0, num_inference_steps=s.steps)
                technique = dataclasses.replace(self.technique, adapter=str(folder), **shown.options)
                guidance = joined(plain_guidance(self.backbone.defaults), technique.weights(), technique.jointly())
                rows.append(sample(self.backbone, request, [technique, *guidance])[0])
        if rows:
            labels = [f"{shown.prompt} {shown.options}" for shown in s.preview]
            contact_sheet(path, torch.stack(rows).cpu(), labels)


def make_card(
    settings: AdapterSettings, stage: AdapterStage, steps: int, clips: int, seconds: float, data: Path | None
) -> dict[str, Any]:
    """What a person should know of an adapter; scores are added by whoever measures."""
    own = "clips of a user" if data is not None else f"kinema.world, curriculum {settings.clips.curriculum!r}"
    return {
        "name": settings.name,
        "model": settings.model,
        "parameters": sum(p.numel() for p in stage.network.parameters()),
        "data": {"from": own, "clips": 0 if stage.clips is None else len(stage.clips.told)},
        "training": {
            "steps": steps,
            "clips_seen": clips,
            "seconds": round(seconds),
            "hardware": hardware(stage.backbone.device),
            "torch": torch.__version__,
            "settings": asdict(settings),
        },
        "scores": {},
    }
