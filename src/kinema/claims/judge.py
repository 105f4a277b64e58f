"""The judge's accuracy on rendered clips it has never seen.

    python -m kinema.claims.judge --count 2000

Half of the clips show combinations of kind, colour and ground that were kept out of all training. Bars: 98% for
kind, colour, ground and sky, 95% for all events in order and for the camera move.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from kinema.claims import options
from kinema.claims.statistics import Share, share
from kinema.files import write_text
from kinema.metrics.judge import Judge
from kinema.training.degrade import degrade
from kinema.training.judge import ANSWERS, IGNORE, TEST_SEED, film, targets
from kinema.world.sample import Split, sample_spec

BARS = {"count": 0.98, "kind": 0.98, "colour": 0.98, "ground": 0.98, "sky": 0.98, "camera": 0.95, "event": 0.95}
SPLITS: tuple[Split, ...] = ("train", "held_out")
SIZE = 128  # pixels of the rendered clips


def measure(
    judge: Judge, count: int, batch: int = 25, curriculum: str = "first", seed: int = TEST_SEED, worse: bool = False
) -> Measured:
    """Read `count` rendered clips of 25 frames at 128x128, half of each split.

    worse: all of them soft, bent, noisy or blocky, and half of them moving in steps, as the judge knows them from
    its training (see training/degrade.py) and as generated clips often are.
    """
    measured = Measured(judge)
    generator = torch.Generator().manual_seed(seed)
    stutter = (0.5, generator) if worse else None
    for number, split in enumerate(SPLITS):
        first = seed + number * count
        for start in range(first, first + count // 2, batch):
            seeds = range(start, min(start + batch, first + count // 2))
            specs = [sample_spec(s, curriculum, split) for s in seeds]
            frames, _ = film(specs, specs[0].num_frames, SIZE, stutter=stutter)
            if worse:
                x = degrade(frames.permute(0, 1, 4, 2, 3).float() / 255, generator, share=1.0)
                frames = (x * 255).round().byte().permute(0, 1, 3, 4, 2)
            measured.add(split, judge.logits(list(frames)), targets(specs, judge.config))
    return measured


class Measured:
    """Answers of the judge beside the right ones."""

    def __init__(self, judge: Judge) -> None:
        self.config = judge.config
        self.right: dict[str, dict[str, list[bool]]] = {split: {name: [] for name in ANSWERS} for split in SPLITS}
        self.pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in ANSWERS}  # (asked, read)

    def add(self, split: str, logits: dict[str, Tensor], answers: dict[str, Tensor]) -> None:
        for name in ANSWERS:
            read, asked = logits[name].argmax(-1), answers[name]
            counted = asked != IGNORE
            good = (read == asked) | ~counted
            self.right[split][name] += (good.flatten(1).all(1) if good.ndim > 1 else good).tolist()
            self.pairs[name] += list(zip(asked[counted].tolist(), read[counted].tolist(), strict=True))

    def accuracy(self, name: str, split: str | None = None) -> Share:
        """Share of clips in which everything under `name` was read rightly."""
        splits = SPLITS if split is None else (split,)
        return share([r for s in splits for r in self.right[s][name]])

    def confusions(self, name: str, most: int = 3) -> list[str]:
        """The mistakes made most often."""
        tables = {"kind": "kinds", "colour": "colours", "ground": "grounds", "sky": "skies", "camera": "cameras"}
        words = getattr(self.config, {**tables, "event": "events"}.get(name, ""), None)
        wrong: dict[tuple[int, int], int] = {}
        for pair in self.pairs[name]:
            if pair[0] != pair[1]:
                wrong[pair] = wrong.get(pair, 0) + 1
        ordered = sorted(wrong, key=lambda pair: -wrong[pair])[:most]
        return [f"{wrong[a, b]}x {words[a] if words else a} as {words[b] if words else b}" for a, b in ordered]

    def to_dict(self) -> dict[str, Any]:
        return {
            name: {
                **self.accuracy(name).to_dict(),
                **{split: self.accuracy(name, split).value for split in SPLITS},
                "bar": BARS[name],
                "confusions": self.confusions(name, 5),
            }
            for name in ANSWERS
        }


def main(
    count: Annotated[int, typer.Option(min=2, help="Clips, half of each split.")] = 2000,
    judge: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Another judge than kinema's own.")] = None,
    as_json: options.AsJson = None,
    card: Annotated[bool, typer.Option(help="Write the numbers into the judge's card.json.")] = False,
    worse: Annotated[bool, typer.Option(help="Clips made worse, as generated ones are; there are no bars.")] = False,
) -> None:
    """Measure the judge on rendered clips with seeds of their own; exit code 1 when a bar is missed."""
    reader = Judge.load(judge)
    measured = measure(reader, count, worse=worse)
    kind = "rendered clips made worse" if worse else "rendered clips"
    print(f"{count} {kind}, 25 frames of {SIZE}x{SIZE}, seeds from {TEST_SEED}, half held-out combinations\n")
    print(f"{'':8} {'bar':>5}  {'right':>6}  95% interval           train  held out  most common mistakes")
    for name in ANSWERS:
        all_, (seen, kept) = measured.accuracy(name), (measured.accuracy(name, s).value for s in SPLITS)
        low, high = all_.interval
        mistakes = "; ".join(measured.confusions(name))
        mark = " " if all_.value >= BARS[name] else "!"
        interval = f"[{low:6.1%}, {high:6.1%}]"
        print(
            f"{name:8} {BARS[name]:5.0%} {mark}{all_.value:6.1%}  {interval:20}  {seen:6.1%}  {kept:8.1%}  {mistakes}"
        )
    command = f"python -m kinema.claims.judge --count {count}{' --worse' if worse else ''}"
    numbers: dict[str, Any] = {"command": command, "accuracy": measured.to_dict()}
    if as_json is not None:
        write_text(as_json, json.dumps(numbers, indent=2) + "\n")
    if card:
        reader.card |= {"worse": numbers} if worse else numbers
        reader.save(judge or Path(__file__).parent.parent / "weights" / "judge")
    if not worse and any(measured.accuracy(name).value < bar for name, bar in BARS.items()):
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
