"""Training of the event times (`kinema.metrics.event_times`) on rendered clips, with the judge held as it is.

The world's scenes fill their clips with events, so that a time could be guessed without looking. In most of the
clips the events are therefore moved and shortened (`retimed`). Some batches are seen as `mini` paints them anew
(`training.painting`), whose faults hide when things begin and end more than anything else; what the judge makes of
those is kept in the folder of the run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kinema.metrics.event_times import EventTimer, TimesConfig, TimesNet, fingerprint
from kinema.metrics.judge import Judge, look
from kinema.training.degrade import degrade, shift
from kinema.training.judge import TEST_SEED, TRAIN_SEED, film, targets
from kinema.training.kept import kept
from kinema.training.painting import Painter
from kinema.training.trainer import Report, Trainer, TrainerSettings, seeded
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import MIN_EVENT_SECONDS, sample_spec
from kinema.world.spec import SceneSpec

FIRST_SEED = TRAIN_SEED + 500_000_000  # other clips than the judge was trained on, which it reads better than new ones
AT_ONCE = 16  # clips that are painted together
NATURAL = ("jump", "fall")  # last as long as gravity makes them


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Sizes of the head, as in `TimesConfig`."""

    width: int = 64
    layers: int = 3


@dataclass(frozen=True, kw_only=True)
class EventTimesSettings:
    """Section `event_times` of a recipe."""

    trainer: TrainerSettings
    net: NetSettings = field(default_factory=NetSettings)
    batches: int = 200  # different batches; after them the same ones come again
    painted: int = 40  # other batches, of clips that `mini` paints anew
    painted_share: float = 0.4  # share of the steps that learn from those, 0..1
    curriculum: str = "first"
    retimed_share: float = 0.7  # share of clips whose events are moved and shortened, 0..1
    worse_share: float = 0.4  # share of clips made worse, 0..1
    stutter_share: float = 0.3  # share of clips whose motion goes in steps of four frames, 0..1
    max_shift: int = 3  # pixels
    judge: str | None = None  # folder of the judge; None: kinema's own

    def __post_init__(self) -> None:
        for name in ("retimed_share", "worse_share", "stutter_share", "painted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 0 to 1")
        if min(self.batches, self.painted) < 1:
            raise ValueError(f"batches is {self.batches} and painted {self.painted}; use 1 or more")


def retimed(spec: SceneSpec, rng: random.Random) -> SceneSpec:
    """The same events in the same order at other times: shorter by up to a half, with random waits around them.

    What gravity times keeps its length.
    """
    events = sorted(spec.events, key=lambda event: event.start)
    lengths = [event.end - event.start for event in events]
    lengths = [
        length if event.action in NATURAL else max(MIN_EVENT_SECONDS, length * rng.uniform(0.5, 1.0))
        for event, length in zip(events, lengths, strict=True)
    ]
    room = (spec.num_frames - 1) / spec.fps - sum(lengths)
    if room <= 0:
        return spec
    waits = [rng.expovariate(1.0) for _ in range(len(events) + 1)]  # all ways to share the room are as likely
    at, placed = 0.0, []
    for event, length, wait in zip(events, lengths, waits, strict=False):
        at += wait / sum(waits) * room
        placed.append(replace(event, start=round(at, 3), end=round(at + length, 3)))
        at = placed[-1].end
    return replace(spec, events=tuple(placed))


def times(specs: Sequence[SceneSpec], slots: int) -> Tensor:
    """Start and end of each event, (B, slots, 2), as a part of the way from first to last frame; NaN for no event."""
    rows = torch.full((len(specs), slots, 2), torch.nan)
    for i, spec in enumerate(specs):
        length = (spec.num_frames - 1) / spec.fps
        for slot, event in enumerate(sorted(spec.events, key=lambda event: event.start)[:slots]):
            rows[i, slot] = torch.tensor([event.start, event.end]) / length
    return rows.clamp(0, 1)


class EventTimesStage:
    """What the trainer needs to know about the event times."""

    def __init__(self, settings: EventTimesSettings, folder: Path, device: str = "cpu") -> None:
        self.settings, self.folder = settings, folder / "painted"
        self.judge = Judge.load(settings.judge, device)
        read = self.judge.config
        config = TimesConfig(
            judge=fingerprint(self.judge.net), tokens=read.width, events=len(read.events), **vars(settings.net)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.trainer.seed)
            self.net = TimesNet(config)
        self.modules: Mapping[str, nn.Module] = {"event_times": self.net}
        self.known: dict[int, dict[str, Tensor]] = {}  # batches by number

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """What the judge makes of clips, and the times of the events that it read rightly."""
        s = self.settings
        anew = float(torch.rand(1, generator=generator)) < s.painted_share
        number = s.batches + step % s.painted if anew else step % s.batches
        if number not in self.known:
            self.known[number] = self.painted(number) if anew else self.make(number)
        return self.known[number]

    def make(self, number: int) -> dict[str, Tensor]:
        """Draws a batch and shows it to the judge."""
        s = self.settings
        specs, generator = self.scenes(number)
        return self.read(specs, generator, s.worse_share, s.stutter_share)

    def painted(self, number: int) -> dict[str, Tensor]:
        """The same of clips painted anew, from the folder if it is there."""
        specs, generator = self.scenes(number)

        def make() -> dict[str, Tensor]:
            frames, config = render_frames(simulate(specs)[0]), self.judge.config
            parts = [slice(n, n + AT_ONCE) for n in range(0, len(specs), AT_ONCE)]
            anew = torch.cat([self.painter.frames(frames[part], specs[part], generator) for part in parts])
            x = torch.stack([look(clip, config.size, config.frames) for clip in anew])
            return self.answers(x.to(self.judge.device), specs)

        made_of = [self.net.config.judge, *(spec.to_dict() for spec in specs)]
        found = kept(self.folder / f"batch-{number:05d}.safetensors", made_of, make)
        return {name: u.to(self.judge.device) for name, u in found.items()}

    @cached_property
    def painter(self) -> Painter:
        return Painter.of("mini", self.judge.device)

    def scenes(self, number: int) -> tuple[list[SceneSpec], torch.Generator]:
        """Of a batch, and where all its other numbers come from."""
        s, count = self.settings, self.settings.trainer.batch_size
        generator = seeded(s.trainer.seed, FIRST_SEED, number)
        seeds = range(FIRST_SEED + number * count, FIRST_SEED + (number + 1) * count)
        specs = [sample_spec(seed, s.curriculum, "train") for seed in seeds]
        moved = (torch.rand(count, generator=generator) < s.retimed_share).tolist()
        return [retimed(x, random.Random(x.seed)) if m else x for x, m in zip(specs, moved, strict=True)], generator

    def read(
        self, specs: Sequence[SceneSpec], generator: torch.Generator, worse: float, stutter: float
    ) -> dict[str, Tensor]:
        """The judge's tokens of clips, moved by some pixels and a share of them made worse, with the right answers."""
        config, device, reach = self.judge.config, self.judge.device, self.settings.max_shift
        frames, _ = film(specs, config.frames, config.size, device, (stutter, generator))
        pixels = torch.randint(-reach, reach + 1, (len(specs), 2), generator=generator)
        x = shift(frames.permute(0, 1, 4, 2, 3), pixels).float() / 255
        return self.answers(degrade(x, torch.Generator(device).manual_seed(generator.initial_seed()), worse), specs)

    @torch.no_grad()
    def answers(self, x: Tensor, specs: Sequence[SceneSpec]) -> dict[str, Tensor]:
        """The judge's tokens of clips (B, T, 3, H, W) in 0..1 with the right answers."""
        config, seen = self.judge.config, self.judge.net(x)
        right = seen["event"].argmax(-1).cpu() == targets(specs, config)["event"]
        asked = torch.where(right[..., None], times(specs, config.event_slots), torch.nan)
        return {**{name: seen[name] for name in ("token", "happening", "event")}, "times": asked}

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean distance of start and end from the truth, as a part of the clip."""
        found, asked = self.net(batch["token"], batch["happening"], batch["event"]), batch["times"]
        there = ~asked.isnan()
        away = (found - asked.nan_to_num()).abs()[there]
        return away.mean(), {"median": away.detach().median()}

    def sheet(self, path: Path) -> None:
        """Events of test clips as bars over time: when they happen, and below when the head says they do."""
        from PIL import Image, ImageDraw

        specs = [sample_spec(TEST_SEED - 1 - i, self.settings.curriculum, "all") for i in range(16)]
        specs = [retimed(spec, random.Random(spec.seed)) for spec in specs]
        batch = self.read(specs, torch.Generator().manual_seed(0), 0.0, 0.0)
        with torch.no_grad():
            found = self.net(batch["token"], batch["happening"], batch["event"]).cpu()
        picture = Image.new("RGB", (640, 40 * len(specs)), "white")
        pen = ImageDraw.Draw(picture)
        for i in range(len(specs)):
            for slot, colour in enumerate(("steelblue", "darkorange", "seagreen", "crimson")[: found.shape[1]]):
                asked = batch["times"][i, slot]
                if not bool(asked.isnan().any()):
                    for row, (start, end) in enumerate((asked.tolist(), found[i, slot].tolist())):
                        top = 40 * i + 4 + 16 * row
                        pen.rectangle((640 * min(start, end), top, 640 * max(start, end), top + 12), colour)
        picture.save(path)


def train_event_times(
    settings: EventTimesSettings, folder: Path, out: Path | None = None, device: str = "cpu", hardware: str = ""
) -> Report:
    """Train (or resume) in `folder`; when it is finished, write the averaged weights and their card.

    They go to `out`, or to the folder `event_times` of `folder`. An interrupted training writes none.
    """
    stage = EventTimesStage(settings, folder, device)

    def write(report: Report) -> None:
        card = {
            "what": "start and end of the events that kinema's judge reads in clips of kinema.world",
            "data": f"rendered clips, curriculum {settings.curriculum!r}, training split, seeds from {FIRST_SEED}; "
            f"{settings.painted_share:.0%} of the steps on {settings.painted * settings.trainer.batch_size} others "
            "that mini painted anew",
            "clips": min(report.step, settings.batches + settings.painted) * settings.trainer.batch_size,
            "steps": report.step,
            "hardware": hardware,
            "parameters": sum(p.numel() for p in stage.net.parameters()),
            "seconds": round(report.seconds),
        }
        EventTimer(stage.net, stage.judge, card).save(out or folder / "event_times")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)
