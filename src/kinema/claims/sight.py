"""What kinema sees in rendered clips it has never seen: objects, nearness, and when things happen.

    python -m kinema.claims.sight --count 200

Clips of 25 frames at 128x128 of both curricula, half of them with combinations of kind, colour and ground that were
kept out of all training. Bars on curriculum "first": object F1 0.98, box IoU 0.8, and event boundaries within two
frames in the median, also where the events are moved to other times than the scenes give them.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from kinema.claims import options
from kinema.claims.cards import WEIGHTS, write_measured
from kinema.core.optional import library
from kinema.files import write_text
from kinema.metrics.event_times import TimedEvent, as_one
from kinema.metrics.extractors.world import World
from kinema.metrics.judge import event_word
from kinema.metrics.objects import ObjectTrack, tracks
from kinema.training.degrade import degrade
from kinema.training.event_times import retimed
from kinema.training.judge import TEST_SEED
from kinema.world.motion import simulate
from kinema.world.render import render
from kinema.world.sample import Split, sample_spec
from kinema.world.spec import SceneSpec

BARS = {"object_f1": 0.98, "box_iou": 0.8, "boundary": 2.0}  # the last in frames, at most
SPLITS: tuple[Split, ...] = ("train", "held_out")
FOUND = 0.5  # IoU from which an object counts as found in a frame
LEAST = 0.0006  # of the picture; what is seen of an object and smaller is not asked for
BATCH = 10


@dataclass(eq=False)
class Measured:
    """Numbers of one curriculum, a value for each frame, object, clip or event boundary."""

    mask_iou: list[float] = field(default_factory=list)  # of frames with an object
    right: int = 0  # objects of frames that their own track covers
    missed: int = 0
    invented: int = 0
    box_iou: list[float] = field(default_factory=list)  # of objects of frames that are found
    colours: list[bool] = field(default_factory=list)  # of objects whose colour does not change
    depth_error: list[float] = field(default_factory=list)  # of clips
    depth_correlation: list[float] = field(default_factory=list)
    boundaries: dict[str, list[float]] = field(default_factory=lambda: {"as drawn": [], "moved": []})  # frames
    read: dict[str, list[bool]] = field(default_factory=lambda: {"as drawn": [], "moved": []})  # all words right

    @property
    def object_f1(self) -> float:
        """2 right / (2 right + missed + invented), over all frames."""
        return 2 * self.right / max(1, 2 * self.right + self.missed + self.invented)

    def boundary(self, which: str, share: float) -> float:
        """Frames that `share` of the starts and ends are off by at most; NaN without any."""
        found = self.boundaries[which]
        return float(np.quantile(found, share)) if found else math.nan

    def to_dict(self, fps: float) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "mask_iou": mean(self.mask_iou),
            "object_f1": round(self.object_f1, 4),
            "box_iou": mean(self.box_iou),
            "colour": mean(self.colours),
            "depth_error": mean(self.depth_error),
            "depth_correlation": mean(self.depth_correlation),
        }
        for which, found in self.boundaries.items():
            half, most = self.boundary(which, 0.5), self.boundary(which, 0.9)
            numbers[f"events {which}"] = {
                "boundaries": len(found),
                "median_frames": round(half, 3),
                "p90_frames": round(most, 3),
                "median_seconds": round(half / fps, 4),
                "p90_seconds": round(most / fps, 4),
                "clips_read_rightly": mean(self.read[which]),
            }
        return numbers


def mean(values: list[Any]) -> float:
    """Rounded; NaN of nothing."""
    return round(float(np.mean(values)), 4) if values else math.nan


def measure(reader: World, count: int, curriculum: str, seed: int, worse: bool = False) -> Measured:
    """Look at `count` rendered clips, half of each split; `worse`: soft, noisy or blocky ones (training/degrade.py)."""
    found = Measured()
    generator = torch.Generator().manual_seed(seed)
    for number, split in enumerate(SPLITS):
        first = seed + number * count
        for start in range(first, first + count // 2, BATCH):
            seeds = range(start, min(start + BATCH, first + count // 2))
            specs = [sample_spec(s, curriculum, split) for s in seeds]
            for which in ("as drawn", "moved"):
                drawn = render(simulate(specs)[0])
                frames = made_worse(drawn.frames, generator) if worse else drawn.frames
                for spec, clip, depth, mask in zip(specs, frames.numpy(), drawn.depth, drawn.mask, strict=True):
                    if which == "as drawn":
                        add_sight(found, reader, spec, clip, depth.numpy(), mask.numpy())
                    add_times(found, which, reader, spec, clip)
                specs = [moved(spec) for spec in specs]
    return found


def moved(spec: SceneSpec) -> SceneSpec:
    """The scene with its events at other times; as it is where they cannot be moved, because one goes on in another."""
    plain = all(event.action not in ("stop", "push", "circle") for event in spec.events)
    return retimed(spec, random.Random(spec.seed)) if plain else spec


def made_worse(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Clips (B, T, H, W, 3) uint8, all soft, noisy or blocky; outlines stay where they are."""
    x = degrade(frames.permute(0, 1, 4, 2, 3).float() / 255, generator, share=1.0, bend=False)
    return (x * 255).round().byte().permute(0, 1, 3, 4, 2)


def add_sight(
    found: Measured, reader: World, spec: SceneSpec, frames: np.ndarray, depth: np.ndarray, mask: np.ndarray
) -> None:
    """Masks, objects and nearness of one clip beside the truth (T, H, W)."""
    sure, near = reader.sight.see(frames)
    there = mask > 0
    both, either = (there & (sure > 0.5)).sum((1, 2)), (there | (sure > 0.5)).sum((1, 2))
    found.mask_iou += (both / np.maximum(either, 1))[there.any((1, 2))].tolist()
    add_objects(found, spec, tracks(frames, sure > 0.5), mask)
    ground = mask >= 0
    error, correlation = agreement(near[ground], 1 / depth[ground])
    found.depth_error.append(error)
    found.depth_correlation.append(correlation)


def add_objects(found: Measured, spec: SceneSpec, seen: list[ObjectTrack], mask: np.ndarray) -> None:
    """Each object of the scene has the one track that covers it best; in each frame it is found, missed or invented."""
    least = LEAST * mask[0].size
    truth = [mask == i + 1 for i in range(len(spec.objects))]
    truth = [each & (each.sum((1, 2)) >= least)[:, None, None] for each in truth]
    iou = np.zeros((len(truth), len(seen), len(mask)))
    for i, each in enumerate(truth):
        for j, track in enumerate(seen):
            iou[i, j] = (each & track.mask).sum((1, 2)) / np.maximum((each | track.mask).sum((1, 2)), 1)
    rows, columns = library("scipy.optimize").linear_sum_assignment(iou.sum(-1), maximize=True)
    own = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    right = 0
    for i, each in enumerate(truth):
        if i not in own or not iou[i, own[i]].any():
            continue
        track = seen[own[i]]
        hit = iou[i, own[i]] >= FOUND
        right += int(hit.sum())
        found.box_iou += [box_iou(box_of(each[t]), track.boxes[t]) for t in np.flatnonzero(hit)]
        if not any(event.action == "change colour" for event in spec.events) and spec.objects[i].kind != "picture":
            found.colours.append(track.word == spec.objects[i].colour)
    # What is seen of a thing too small to be asked for is neither right nor invented.
    hidden = (mask > 0) & ~np.any(truth, axis=0) if truth else np.zeros_like(mask, dtype=bool)
    tiny = sum(int((track.mask & hidden).any((1, 2)).sum()) for track in seen)
    asked = sum(int(each.any((1, 2)).sum()) for each in truth)
    shown = sum(int(track.seen.sum()) for track in seen)
    found.right += right
    found.missed += asked - right
    found.invented += max(0, shown - right - tiny)


def box_of(mask: np.ndarray) -> np.ndarray:
    """Box (x0, y0, x1, y1) of a mask (H, W), ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = float(np.prod(np.clip(high - low, 0, None)))
    return both / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def agreement(seen: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean distance after the best scale and shift (least squares) as a part of the mean truth, and correlation."""
    x, y = seen.astype(np.float64), true.astype(np.float64)
    scale = ((x - x.mean()) * (y - y.mean())).mean() / max(x.var(), 1e-12)
    fitted = y.mean() + scale * (x - x.mean())
    return float(np.abs(fitted - y).mean() / y.mean()), float(np.corrcoef(x, y)[0, 1])


def add_times(found: Measured, which: str, reader: World, spec: SceneSpec, frames: np.ndarray) -> None:
    """Starts and ends of the events of a clip whose words the judge has all read rightly."""
    events = sorted(spec.events, key=lambda event: event.start)
    asked = as_one([TimedEvent(event_word(e.label), e.start, e.end, 1.0) for e in events])
    read = reader.timer.read([frames], spec.fps)[0]
    same = [e.word for e in asked] == [e.word for e in read]
    found.read[which].append(same)
    if same:
        for a, b in zip(asked, read, strict=True):
            found.boundaries[which] += [abs(a.start - b.start) * spec.fps, abs(a.end - b.end) * spec.fps]


def main(
    count: Annotated[int, typer.Option(min=2, help="Clips of each curriculum, half of each split.")] = 200,
    seed: Annotated[int, typer.Option(help="First seed of the clips.")] = TEST_SEED,
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Others than kinema's own networks.")] = None,
    as_json: options.AsJson = None,
    card: Annotated[bool, typer.Option(help="Write the numbers into the card.json of both networks.")] = False,
    worse: Annotated[bool, typer.Option(help="Clips made worse, as generated ones are; there are no bars.")] = False,
) -> None:
    """Measure what kinema sees on rendered clips with seeds of their own; exit code 1 when a bar is missed."""
    reader = World(str(model or ""))
    kind = "rendered clips made worse" if worse else "rendered clips"
    print(f"{count} {kind} of each curriculum, 25 frames of 128x128, seeds from {seed}, half held-out combinations")
    results, numbers = {}, {}
    for curriculum in ("first", "full"):
        results[curriculum] = measure(reader, count, curriculum, seed, worse)
        numbers[curriculum] = results[curriculum].to_dict(fps=8.0)
        show(curriculum, numbers[curriculum])
    told = {"command": f"python -m kinema.claims.sight --count {count} --seed {seed}{' --worse' * worse}", **numbers}
    if as_json is not None:
        write_text(as_json, json.dumps(told, indent=2) + "\n")
    if card:
        write_cards(reader, told, model, worse)
    if not worse and not holds(results["first"]):
        raise typer.Exit(1)


def show(curriculum: str, numbers: dict[str, Any]) -> None:
    print(f"\n{curriculum}")
    for name, value in numbers.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key.replace('_', ' ')} {each}" for key, each in value.items())
        print(f"  {name.replace('_', ' '):20} {value}")


def holds(found: Measured) -> bool:
    """Whether the bars are reached."""
    near = all(found.boundary(which, 0.5) <= BARS["boundary"] for which in found.boundaries)
    return found.object_f1 >= BARS["object_f1"] and mean(found.box_iou) >= BARS["box_iou"] and near


def write_cards(reader: World, told: dict[str, Any], model: Path | None, worse: bool) -> None:
    """Numbers of the sight into its card, those of event times into theirs."""
    folder = model or WEIGHTS
    for name, owner, times in (("sight", reader.sight, False), ("event_times", reader.timer, True)):
        part: dict[str, Any] = {"command": told["command"]}
        for curriculum in ("first", "full"):
            part[curriculum] = {k: v for k, v in told[curriculum].items() if k.startswith("events") == times}
        write_measured(owner, folder / name, part, "worse" if worse else "measured")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
