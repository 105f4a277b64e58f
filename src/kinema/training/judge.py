"""Training of the judge (`kinema.metrics.judge`) on clips rendered as they are needed; never on generated video.

Clips of the training split only, mirrored half of the time (left and right change places in the answers), moved by
some pixels and made worse (`training/degrade.py`). Where an object is in a frame is known exactly, and a part of
the loss asks the heat maps for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.metrics.judge import NONE, Judge, JudgeConfig, JudgeNet, event_word, readings, resize
from kinema.training.degrade import degrade, shift
from kinema.training.trainer import Report, Trainer, TrainerSettings
from kinema.world.curricula import Curriculum, get_curriculum
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec, SceneState
from kinema.world.vocabulary import DIRECTED, DIRECTIONS

TRAIN_SEED = 1_000_000_000  # clips of the training have seeds from here on
TEST_SEED = 2_000_000_000  # and those that measure the judge from here on
ANSWERS = ("count", "kind", "colour", "ground", "sky", "camera", "event")
HELPERS = ("heat", "motion")  # asked for in training only: where objects are, how everything moves
IGNORE = -100  # index of an answer that is not asked for


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Sizes of the network, as in `JudgeConfig`."""

    frames: int = 13
    size: int = 64
    channels: tuple[int, int, int] = (24, 48, 96)
    width: int = 128
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Section `judge` of a recipe."""

    trainer: TrainerSettings
    net: NetSettings = field(default_factory=NetSettings)
    curriculum: str = "first"
    sizes: tuple[int, ...] = (64, 128)  # pixels that clips are rendered at, one drawn for each batch
    empty_share: float = 0.02  # share of clips without an object, 0..1
    max_shift: int = 3  # pixels
    worse_share: float = 0.6  # share of clips made worse, 0..1
    stutter_share: float = 0.5  # share of clips whose motion goes in steps of four frames, 0..1
    start_from: str | None = None  # folder of a judge whose weights it begins with; None begins from nothing
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*ANSWERS, *HELPERS), 1.0))

    def __post_init__(self) -> None:
        if set(self.weights) != {*ANSWERS, *HELPERS}:
            allowed = ", ".join((*ANSWERS, *HELPERS))
            raise ValueError(f"weights has {', '.join(self.weights)}; use exactly {allowed}")
        if not 0 <= self.empty_share < 1:
            raise ValueError(f"empty_share is {self.empty_share}; use 0 up to below 1")
        if not self.sizes or any(size < 8 or size % self.net.size for size in self.sizes):
            raise ValueError(f"sizes is {self.sizes}; use multiples of {self.net.size}, the pixels the judge looks at")


def words_of(curriculum: Curriculum, net: NetSettings | None = None) -> JudgeConfig:
    """The judge's words for what a curriculum can show."""
    events = [NONE]
    for action in curriculum.actions:
        for label in [f"{action} {d}" for d in DIRECTIONS] if action in DIRECTED else [action]:
            if event_word(label) not in events:
                events.append(event_word(label))
    return JudgeConfig(
        kinds=curriculum.kinds,
        colours=curriculum.colours,
        grounds=curriculum.grounds,
        skies=curriculum.skies,
        cameras=curriculum.cameras,
        events=tuple(events),
        objects=curriculum.max_objects,
        event_slots=len(curriculum.event_weights),
        **vars(net or NetSettings()),
    )


def targets(specs: Sequence[SceneSpec], config: JudgeConfig) -> dict[str, Tensor]:
    """The right answers as indices: count, ground, sky, camera (B,), kind, colour (B, N), event (B, E).

    Objects are in the order of the spec, events in the order of their start; what is not there is IGNORE ("none"
    for events). Raises: ValueError for a word that the judge does not have.
    """

    def index(words: Sequence[str], word: str) -> int:
        if word not in words:
            raise ValueError(f"the judge has no word {word!r}; it has {', '.join(words)}")
        return words.index(word)

    def padded(row: list[int], length: int, fill: int) -> list[int]:
        if len(row) > length:
            raise ValueError(f"a clip has {len(row)} objects or events, and the judge reads at most {length}")
        return row + [fill] * (length - len(row))

    rows: dict[str, list[Any]] = {name: [] for name in ANSWERS}
    for spec in specs:
        n, e = config.objects, config.event_slots
        happens = sorted(spec.events, key=lambda event: event.start)
        rows["count"].append(len(spec.objects))
        rows["kind"].append(padded([index(config.kinds, o.kind) for o in spec.objects], n, IGNORE))
        rows["colour"].append(padded([index(config.colours, o.colour) for o in spec.objects], n, IGNORE))
        rows["ground"].append(index(config.grounds, spec.ground))
        rows["sky"].append(index(config.skies, spec.sky))
        rows["camera"].append(index(config.cameras, spec.camera.move))
        rows["event"].append(padded([index(config.events, event_word(x.label)) for x in happens], e, 0))
    return {name: torch.tensor(row) for name, row in rows.items()}


def film(
    specs: Sequence[SceneSpec],
    frames: int,
    size: int,
    device: torch.device | str = "cpu",
    stutter: tuple[float, torch.Generator] | None = None,
) -> tuple[Tensor, SceneState]:
    """Render what the judge looks at: (B, frames, size, size, 3) uint8, and the state of just these frames.

    stutter: the share of clips whose time goes in steps (see `moments`), and where its numbers come from.
    """
    state, _ = simulate([replace(spec, height=size, width=size) for spec in specs])
    state = state.to(device)
    keep = moments(len(specs), specs[0].num_frames, frames, *(stutter or (0.0, torch.Generator()))).to(device)
    rows = torch.arange(len(specs), device=device)[:, None]
    tracks = ("centre", "rotation", "size", "colour", "opacity", "pose", "intrinsics", "world_to_camera")
    state = replace(state, **{name: getattr(state, name)[rows, keep] for name in tracks})
    return render_frames(state), state


def moments(count: int, num_frames: int, frames: int, share: float, generator: torch.Generator) -> Tensor:
    """Which of `num_frames` frames are looked at, (count, frames) rising indices, evenly from the first to the last.

    In `share` of the clips they are drawn towards every fourth frame, each clip by its own amount: models that make
    four frames at once let things wait and then jump. Nothing changes its order.
    """
    even = torch.linspace(0, num_frames - 1, frames).expand(count, frames)
    towards = torch.rand(count, 1, generator=generator) * (torch.rand(count, 1, generator=generator) < share)
    late = torch.rand(count, 1, generator=generator)  # where in the group of four its moment is
    steps = (4 * (even / 4 - late).ceil() + 4 * late - 2).clamp(0, num_frames - 1)
    return (even + towards * (steps - even)).round().long().clamp(0, num_frames - 1)


def places(state: SceneState) -> Tensor:
    """Where the centres of objects are in the picture: (B, T, N, 2), x and y in -1..1; NaN where none is seen."""
    rotation, offset = state.world_to_camera[..., :3, :3], state.world_to_camera[..., :3, 3]
    eye = torch.einsum("btij,btnj->btni", rotation, state.centre) + offset[:, :, None]
    pixel = torch.einsum("btij,btnj->btni", state.intrinsics, eye)
    xy = pixel[..., :2] / pixel[..., 2:].clamp_min(1e-3)
    xy = xy / xy.new_tensor([state.width, state.height]) * 2 - 1
    seen = (eye[..., 2] > 0) & (xy.abs() < 1).all(-1) & (state.opacity > 0.5) & (state.kind >= 0)[:, None]
    return torch.where(seen[..., None], xy, torch.nan)


def motions(state: SceneState) -> Tensor:
    """How camera and objects have moved since the first frame, (B, T, 6 + 4N).

    The camera's yaw (to the right) and pitch in tenths of a radian, five times the logarithm of its focal length,
    its eye's x, y, z in metres; for each object x, y, z in metres and three times the logarithm of its size. Axes
    are those of the first camera, turned level. Objects that are not there have NaN.
    """
    w2c = state.world_to_camera
    forward, right = w2c[..., 2, :3], w2c[..., 0, :3]
    eye = -torch.einsum("btji,btj->bti", w2c[..., :3, :3], w2c[..., :3, 3])
    level = torch.stack([right[:, 0], _level(forward[:, 0]), torch.tensor([0.0, 0, 1]).to(eye).expand_as(eye[:, 0])], 1)
    ahead = torch.einsum("bij,btj->bti", level, forward)
    yaw, pitch = torch.atan2(ahead[..., 0], ahead[..., 1]), torch.asin(ahead[..., 2].clamp(-1, 1))
    focal = state.intrinsics[..., 1, 1].log()
    turns = torch.stack([10 * yaw, 10 * (pitch - pitch[:, :1]), 5 * (focal - focal[:, :1])], -1)
    camera = torch.cat([turns, torch.einsum("bij,btj->bti", level, eye - eye[:, :1])], -1)
    moved = torch.einsum("bij,btnj->btni", level, state.centre - state.centre[:, :1])
    size = state.size.clamp_min(1e-3).log()
    things = torch.cat([moved, 3 * (size - size[:, :1])[..., None]], -1)
    things = torch.where((state.kind >= 0)[:, None, :, None], things, torch.nan)
    return torch.cat([camera, things.flatten(2)], -1)


def truth(state: SceneState) -> dict[str, Tensor]:
    """What only the training asks for, besides `targets`."""
    return {"place": places(state), "motion": motions(state)}


def _level(forward: Tensor) -> Tensor:
    """Directions (B, 3) without their rise, of length 1."""
    return F.normalize(forward * forward.new_tensor([1.0, 1.0, 0.0]), dim=-1)


class JudgeStage:
    """What the trainer needs to know about the judge."""

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.config = words_of(get_curriculum(settings.curriculum), settings.net)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.trainer.seed)
            self.net = JudgeNet(self.config)
        if settings.start_from is not None:
            self.net.load_state_dict(Judge.load(settings.start_from).net.state_dict())
        nn.Module.to(self.net, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"judge": self.net}

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Rendered clips (B, T, S, S, 3) uint8 with the right answers and where the objects are."""
        s = self.settings
        first = TRAIN_SEED + step * s.trainer.batch_size
        specs = [sample_spec(seed, s.curriculum, "train") for seed in range(first, first + s.trainer.batch_size)]
        empty = torch.rand(len(specs), generator=generator) < s.empty_share
        specs = [replace(x, objects=(), events=()) if e else x for x, e in zip(specs, empty.tolist(), strict=True)]
        size = s.sizes[int(torch.randint(len(s.sizes), (), generator=generator))]
        device, stutter = self.net.position.device, (s.stutter_share, generator)
        frames, state = film(specs, self.config.frames, size, device, stutter)
        return {"frames": frames, **truth(state), **targets(specs, self.config)}

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Weighted sum of the cross entropies of all answers; the share of right ones is logged."""
        with torch.autocast(generator.device.type, enabled=False):  # pictures are made worse in full precision
            frames, answers = self.prepare(batch, generator)
        logits = self.net(frames)
        total = torch.zeros((), device=frames.device)
        numbers: dict[str, float | Tensor] = {}
        moved, seen = answers["motion"].nan_to_num(), ~answers["motion"].isnan()
        error = (F.smooth_l1_loss(logits["motion"].float(), moved, reduction="none") * seen).sum() / seen.sum()
        numbers["motion"] = error.detach()
        total = total + self.settings.weights["motion"] * error
        for name in (*ANSWERS, "heat"):
            weight = self.settings.weights[name]
            flat, right = logits[name].float().flatten(0, -2), answers[name].flatten()
            if (right != IGNORE).any():
                total = total + weight * F.cross_entropy(flat, right, ignore_index=IGNORE)
                numbers[name] = (flat.argmax(-1) == right)[right != IGNORE].float().mean()
        return total, numbers

    def prepare(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames (B, T, 3, S, S) mirrored, moved and made worse, and the answers that go with them."""
        x, place = batch["frames"].permute(0, 1, 4, 2, 3), batch["place"].clone()  # bytes as long as possible: faster
        b, size, reach = len(x), self.config.size, self.settings.max_shift
        flip = torch.rand(b, generator=generator, device=x.device) < 0.5
        x = torch.where(flip[:, None, None, None, None], x.flip(-1), x)
        place[..., 0] = torch.where(flip[:, None, None], -place[..., 0], place[..., 0])
        pixels = torch.randint(-reach, reach + 1, (b, 2), generator=generator, device=x.device)
        zoom = x.shape[-1] // size
        x = shift(x, pixels * zoom).float() / 255
        x = torch.unflatten(resize(x.flatten(0, 1), size), 0, (b, -1))
        x = degrade(x, generator, self.settings.worse_share)
        answers = {name: batch[name] for name in ANSWERS}
        for name, words in (("event", self.config.events), ("camera", self.config.cameras)):
            mirrored = torch.tensor(self.config.mirrored(words), device=x.device)[answers[name]]
            answers[name] = torch.where(flip.view(-1, *[1] * (mirrored.ndim - 1)), mirrored, answers[name])
        place = place + pixels[:, None, None] * 2 / size
        column, row = ((place + 1) / 2 * self.net.grid).floor().nan_to_num(-1).long().unbind(-1)
        inside = (column >= 0) & (row >= 0) & (column < self.net.grid) & (row < self.net.grid)
        signs = torch.ones(batch["motion"].shape[-1], device=x.device)
        signs[[0, 3, *range(6, len(signs), 4)]] = -1  # yaw, and every x
        answers["motion"] = torch.where(flip[:, None, None], batch["motion"] * signs, batch["motion"])
        answers["heat"] = torch.where(inside, row * self.net.grid + column, IGNORE)
        return x, answers

    def sheet(self, path: Path) -> None:
        """Test clips as the judge gets to see them in training, with what it reads, wrong words in red."""
        from PIL import Image, ImageDraw

        specs = [sample_spec(TEST_SEED - 1 - i, self.settings.curriculum, "all") for i in range(12)]
        device = self.net.position.device
        frames, state = film(specs, self.config.frames, self.config.size)
        batch = {"frames": frames, **truth(state), **targets(specs, self.config)}
        generator = torch.Generator(device).manual_seed(0)
        x, right = self.prepare({k: v.to(device) for k, v in batch.items()}, generator)
        logits = self.net(x)
        size, text = self.config.size, 300
        picture = Image.new("RGB", (7 * size + text, len(specs) * size), "white")
        pen = ImageDraw.Draw(picture)
        for i, reading in enumerate(readings(logits, self.config, [1.0] * len(specs))):
            pixels = (x[i, ::2][:7] * 255).round().byte().permute(2, 0, 3, 1).flatten(1, 2).cpu().numpy()
            picture.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, i * size))
            lines = [" ".join(f"{o.colour.word} {o.kind.word}" for o in reading.objects)]
            lines += [f"{reading.ground.word}, {reading.sky.word}, {reading.camera.word}"]
            lines += [", ".join(e.word for e in reading.events)]
            wrong = [n for n in ANSWERS if not bool((logits[n][i].argmax(-1) == right[n][i])[right[n][i] >= 0].all())]
            pen.text((7 * size + 6, i * size + 4), "\n".join(lines), "red" if wrong else "black")
            if wrong:
                pen.text((7 * size + 160, i * size + 40), "wrong: " + " ".join(wrong), "red")
        picture.save(path)


def card_of(stage: JudgeStage, clips: int, steps: int, hardware: str) -> dict[str, Any]:
    """What a judge was trained on. Its accuracy is added by `python -m kinema.claims.judge --card`."""
    part = f"curriculum {stage.settings.curriculum!r}, training split, seeds from {TRAIN_SEED}"
    return {
        "what": "reads objects, ground, sky, camera move and events from clips of kinema.world",
        "data": f"rendered clips only, {part}",
        "clips": clips,
        "steps": steps,
        "hardware": hardware,
        "parameters": sum(p.numel() for p in stage.net.parameters()),
    }


def train_judge(
    settings: JudgeSettings, folder: Path, out: Path | None = None, device: str = "cpu", hardware: str = ""
) -> Report:
    """Train (or resume) in `folder`; when it is finished, write the averaged weights and their card.

    They go to `out`, or to the folder `judge` of `folder`. An interrupted training writes none, but can be resumed.
    """
    stage = JudgeStage(settings)

    def write(report: Report) -> None:
        card = {**card_of(stage, report.clips, report.step, hardware), "seconds": round(report.seconds)}
        Judge(stage.net, card).save(out or folder / "judge")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)
