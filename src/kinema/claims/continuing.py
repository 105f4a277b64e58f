"""Does a model go on with what it is given? Clips of one thing at one speed, of which some frames stay.

    python -m kinema.claims.continuing --model mini
    python -m kinema.claims.continuing --model mini --clips 100 --seed 7 --json continuing.json

Rendered clips of scenes kept out of all training: a still camera, one ball that rolls or cube, cylinder or cone that
slides, to the left, to the right, towards the camera and away from it in turns, at a constant speed. "continue" keeps
the first two latent frames, "fill" the first and the last; the prompt is the scene's caption, or no words at all.

Two things are measured. How well the kept frames stay: their PSNR against the clip, beside that of the clip after the
model's autoencoder, which is all that can be had. And whether the motion goes on: a straight line is laid through the
centres of the largest object in the frames that were made; its way must be less than 45 degrees off the true one, and
at least a third as long. The true way is that of the rendered masks; elsewhere objects are found by kinema's own sight,
in the rendered clips too, which shows what the measure itself gets wrong. Clips made from the caption alone tell how
often the motion is right without any frame.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from kinema.claims import options
from kinema.claims.adherence import Setup, batches, enter_scores, generate_batch, through_autoencoder
from kinema.claims.statistics import Share, share
from kinema.files import write_text
from kinema.metrics.control.psnr import MOST, decibels
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.objects import objects, tracks
from kinema.metrics.statistics import bootstrap
from kinema.metrics.viewing import Viewing
from kinema.world.caption import caption
from kinema.world.curricula import CURRICULA
from kinema.world.dynamics import RAMP
from kinema.world.motion import simulate
from kinema.world.prompts import Prompt
from kinema.world.render import render
from kinema.world.sample import sample_spec
from kinema.world.vocabulary import DIRECTIONS

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

FIRST_SEED = 3_500_000_000  # scenes are looked for from here on
PSNR_BAR = 30.0  # dB, of kept frames
MOTION_BAR = 0.8  # share of the clips
MOST_ANGLE = 45.0  # degrees between the way made and the true one
LEAST_WAY = 1 / 3  # of the true way
WORDS = {"caption": True, "no words": False}


@dataclass(frozen=True)
class Task:
    """Which frames of a clip stay, and which are made."""

    name: str
    keep: str  # as in a request
    kept: tuple[int, ...]  # frames
    made: tuple[int, ...]


def tasks(frames: int, frames_per_latent: int) -> list[Task]:
    """Going on from two latent frames, and filling between the first and the last."""
    k = frames_per_latent
    ends = (0, *range(frames - k, frames))
    return [
        Task("continue", f"0:{1 + k}", tuple(range(1 + k)), tuple(range(1 + k, frames))),
        Task("fill", f"0:1,-{k}:", ends, tuple(range(1, frames - k))),
    ]


def lead(frames: int) -> int:
    """Frames that a scene of constant speed needs before its first and behind its last: things gain speed in them."""
    # A travel over n frames gains its speed in RAMP (n - 1) of them, with n = frames + 2 lead.
    return math.ceil(RAMP * (frames - 1) / (1 - 2 * RAMP))


def scenes(number: int, frames: int, height: int, width: int, fps: float = 8.0) -> list[Prompt]:
    """Scenes with their captions, directions in turns; each is `lead` frames longer at both ends.

    Rings are left out: they turn into their way before they go.
    """
    whole = frames + 2 * lead(frames)
    part = replace(
        CURRICULA["first"],
        kinds=("ball", "cube", "cylinder", "cone"),
        actions=("roll", "slide"),
        cameras=("still",),
        event_weights=(1.0,),
        num_frames=whole,
        height=height,
        width=width,
        fps=fps,
    )
    waiting: dict[str, list[Prompt]] = {direction: [] for direction in DIRECTIONS}
    for seed in count(FIRST_SEED):
        if all(len(found) * len(DIRECTIONS) >= number for found in waiting.values()):
            break
        spec = sample_spec(seed, part, "held_out")
        (event,) = spec.events
        spec = replace(spec, events=(replace(event, start=0.0, end=part.duration),))
        waiting[event.direction].append(Prompt(text=caption(spec, seed), spec=spec))
    return [waiting[DIRECTIONS[i % len(DIRECTIONS)]][i // len(DIRECTIONS)] for i in range(number)]


def rendered(prompts: Sequence[Prompt], frames: int) -> tuple[Tensor, list[np.ndarray]]:
    """Clips (B, T, H, W, 3) uint8 of the middle of scenes, and the true centres of their things, (T, 2) pixels each."""
    state, _ = simulate([p.spec for p in prompts])
    drawn = render(state)
    middle = slice(lead(frames), lead(frames) + frames)
    clips, masks = drawn.frames[:, middle].cpu(), drawn.mask[:, middle].cpu().numpy() > 0
    return clips, [tracks(c.numpy(), m)[0].centre for c, m in zip(clips, masks, strict=True)]


def centres(clip: Tensor, fps: float, extractor: Extractor) -> np.ndarray | None:
    """Centres (T, 2) of the most important object that is seen in a clip, NaN where it is not; None without any."""
    found = objects(Viewing(clip.numpy(), fps), extractor)
    return found[0].centre if found else None


def way(centre: np.ndarray | None, made: Sequence[int]) -> np.ndarray | None:
    """Right and down in pixels, how far a thing goes over the frames `made`: slope of a straight line, times frames.

    Least squares over the frames in which it is seen; None where that is not half of them.
    """
    if centre is None:
        return None
    at = np.array(made)
    there = at[~np.isnan(centre[at, 0])]
    if len(there) < max(2, len(at) / 2):
        return None
    slope = np.polyfit(there, centre[there], 1)[0]
    found: np.ndarray = slope * (at[-1] - at[0])
    return found


def goes_on(found: np.ndarray | None, true: np.ndarray | None) -> bool:
    """Whether a way is less than 45 degrees off the true one and at least a third as long."""
    if true is None or not np.linalg.norm(true):
        raise ValueError("the true motion is nothing; use a scene in which something moves")
    if found is None or not np.linalg.norm(found):
        return False
    length, whole = np.linalg.norm(found), np.linalg.norm(true)
    return bool(found @ true / (length * whole) > math.cos(math.radians(MOST_ANGLE)) and length >= LEAST_WAY * whole)


@dataclass
class Row:
    """What was measured of one kind of clips in one task."""

    task: str
    clips: str
    psnr: list[float] = field(default_factory=list)  # dB of the kept frames of each clip, at most 100
    right: list[bool] = field(default_factory=list)  # whether its motion goes on

    @property
    def motion(self) -> Share:
        return share(self.right)

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"task": self.task, "clips": self.clips, "motion": self.motion.to_dict()}
        if self.psnr:
            values = np.array(self.psnr)
            above = share((values >= PSNR_BAR).tolist())
            told |= {
                "psnr": float(values.mean()),
                "psnr_interval": bootstrap(values),
                "psnr_least": float(values.min()),
            }
            told["psnr_above_bar"] = above.to_dict()
        return told


def measure(
    backbone: Backbone, extractor: Extractor, prompts: Sequence[Prompt], setup: Setup, frames: int
) -> list[Row]:
    """Rows of both tasks: made with a caption and without words, rendered, after the autoencoder, from text alone."""
    every = tasks(frames, backbone.frames_per_latent)
    kinds = (*WORDS, "rendered", "through the autoencoder", "text alone")
    rows = {(task.name, kind): Row(task.name, kind) for task in every for kind in kinds}
    for start, part in batches(prompts, setup.batch, "clips"):
        seeds = [setup.seed + start + i for i in range(len(part))]
        drawn, true = rendered(part, frames)
        texts = [p.text for p in part]
        shown = {"rendered": drawn, "text alone": generate_batch(backbone, texts, seeds, setup)}
        shown["through the autoencoder"] = through_autoencoder(backbone, drawn)
        for task in every:
            made = {
                kind: generate_batch(
                    backbone, texts if words else [""] * len(part), seeds, setup, videos=list(drawn), keep=task.keep
                )
                for kind, words in WORDS.items()
            }
            for kind, clips in {**made, **shown}.items():
                add(rows[task.name, kind], task, clips, drawn, true, extractor, part[0].spec.fps)
    return list(rows.values())


def add(
    row: Row, task: Task, clips: Tensor, drawn: Tensor, true: Sequence[np.ndarray], extractor: Extractor, fps: float
) -> None:
    """Measures a batch of clips (B, T, H, W, 3) beside the rendered ones."""
    if row.clips not in ("rendered", "text alone"):
        kept = list(task.kept)
        row.psnr += decibels(clips[:, kept], drawn[:, kept]).clamp(max=MOST).tolist()
    for clip, centre in zip(clips, true, strict=True):
        row.right.append(goes_on(way(centres(clip, fps, extractor), task.made), way(centre, task.made)))


def table(rows: Sequence[Row], every: Sequence[Task]) -> str:
    """The numbers as text."""
    lines = []
    for task in every:
        lines += ["", f"{task.name}: frames {task.keep} stay, {len(task.made)} are made"]
        bar = f"kept, dB (bar {PSNR_BAR:.0f})"
        lines.append(f"{'':24}{bar:26}{'least':>7}  motion goes on (bar {MOTION_BAR:.0%})")
        for row in rows:
            if row.task != task.name:
                continue
            told = row.to_dict()
            mean, least = "-", "-"
            if row.psnr:
                low, high = told["psnr_interval"] or (told["psnr"], told["psnr"])
                mean, least = f"{told['psnr']:.1f}  [{low:.1f}, {high:.1f}]", f"{told['psnr_least']:.1f}"
            lines.append(f"{row.clips:24}{mean:26}{least:>7}  {row.motion}")
    return "\n".join(lines)


def main(
    clips: Annotated[int, typer.Option(min=1, help="Rendered clips, directions in turns.")] = 100,
    seed: options.Seed = 7,
    model: options.Model = "mini",
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    batch: options.Batch = 8,
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = None,
    card: options.Card = False,
) -> None:
    """Measure how well a model goes on from frames, and fills in between them."""
    from kinema.backbones.load import load

    setup = Setup(
        model=model, seed=seed, steps=steps, guidance_scale=guidance_scale, batch=batch, device=device, dtype=dtype
    )
    backbone = load(model, device, dtype)
    d = backbone.defaults
    prompts = scenes(clips, d.num_frames, d.height, d.width, d.fps)
    rows = measure(backbone, load_extractor("world"), prompts, setup, d.num_frames)
    print(table(rows, tasks(d.num_frames, backbone.frames_per_latent)))
    told = {
        "command": setup.command("continuing", clips=clips),
        "setup": asdict(setup),
        "rows": [row.to_dict() for row in rows],
    }
    if as_json is not None:
        write_text(as_json, json.dumps(told, indent=1) + "\n")
    if card:
        enter_scores(backbone.folder.path, "continuing", {name: told[name] for name in ("command", "rows")})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
