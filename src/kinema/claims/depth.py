"""How well kinema's depth network sees rendered frames it has never seen, beside the sight, which saw many more.

    python -m kinema.claims.depth --count 200

One frame of each clip, 128x128, of both curricula, with combinations of kind, colour and ground that were kept out of
all training; and its next frame, for how much what stands still flickers. Bars on curriculum "first".
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from kinema.claims import options
from kinema.claims.cards import WEIGHTS, write_measured
from kinema.core.optional import library
from kinema.files import write_text
from kinema.layers.depth import Depth
from kinema.layers.structure import normalised, structure_of_depth
from kinema.metrics.sight import Sight
from kinema.training.frames import exposed, scenes
from kinema.training.judge import TEST_SEED

BARS = {"abs_rel": 0.25, "delta": 0.75, "spearman": 0.9}  # the first at most, the others at least
FAR = 50.0  # metres; what lies beyond, sky too, is left out of the errors, which nothing bounds there
FRAME = 12  # of 25
BATCH = 10

See = Callable[[np.ndarray], np.ndarray]  # frames (T, H, W, 3) uint8 -> nearness (T, H, W)


def measure(see: dict[str, See], count: int, curriculum: str, seed: int) -> dict[str, dict[str, float]]:
    """For each network the means over `count` frames."""
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in see}
    for start in range(seed, seed + count, BATCH):
        some = min(BATCH, seed + count - start)
        specs = scenes(start, some, curriculum, (128, 128), "held_out")
        drawn = exposed(specs, torch.tensor([[FRAME, FRAME + 1]]).expand(some, -1))
        for frames, near in zip(drawn["frames"].numpy(), drawn["near"], strict=True):
            for name, eye in see.items():
                for key, value in scores(frames, eye(frames), near).items():
                    found[name][key].append(value)
    return {name: {key: round(float(np.mean(v)), 4) for key, v in each.items()} for name, each in found.items()}


def scores(frames: np.ndarray, guess: np.ndarray, near: torch.Tensor) -> dict[str, float]:
    """Two frames of a clip (2, H, W, 3), the nearness seen in them and the true one, both (2, H, W).

    abs_rel: mean of |s g - d| / d over the first frame, d its depth, g the one seen and s the ratio of their medians.
    delta: the share where s g / d and d / (s g) are below 1.25. spearman: rank correlation of nearness, sky and all.
    structure: mean |difference| of the structures (0..1) of the clip. flicker: mean |change| of the structure seen
    where pixels and their depth stay exactly the same.
    """
    stats = library("scipy.stats")
    depth, seen = 1 / np.maximum(near[0].numpy(), 1e-6), 1 / np.maximum(guess[0], 1e-3)
    there = depth < FAR
    depth, seen = depth[there], seen[there]
    ratio = np.minimum(seen * np.median(depth) / np.median(seen), FAR) / depth
    maps, truth = normalised(torch.from_numpy(guess)).numpy(), structure_of_depth(1 / near).numpy()
    told = {
        "abs_rel": float(np.abs(ratio - 1).mean()),
        "delta": float((np.maximum(ratio, 1 / ratio) < 1.25).mean()),
        "spearman": float(stats.spearmanr(guess[0].ravel(), near[0].ravel()).statistic),
        "structure": float(np.abs(maps - truth).mean()),
    }
    still = (frames[0] == frames[1]).all(-1) & (near[0] == near[1]).numpy()
    return told | ({"flicker": float(np.abs(maps[1] - maps[0])[still].mean())} if still.any() else {})


def main(
    count: Annotated[int, typer.Option(min=1, help="Frames of each curriculum.")] = 200,
    seed: Annotated[int, typer.Option(help="First seed of the clips.")] = TEST_SEED,
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Another than kinema's own network.")] = None,
    as_json: options.AsJson = None,
    card: Annotated[bool, typer.Option(help="Write the numbers into the card.json of the network.")] = False,
) -> None:
    """Measure what the depth network sees on rendered frames; exit code 1 when a bar is missed."""
    depth, sight = Depth.load(model), Sight.load()
    see: dict[str, See] = {"depth": depth.nearness, "sight": lambda frames: sight.see(frames)[1]}
    told: dict[str, Any] = {"command": f"python -m kinema.claims.depth --count {count} --seed {seed}"}
    for curriculum in ("first", "full"):
        told[curriculum] = measure(see, count, curriculum, seed)
        for name, numbers in told[curriculum].items():
            print(f"{curriculum:6} {name:6} " + "  ".join(f"{key} {value:.4f}" for key, value in numbers.items()))
    if as_json is not None:
        write_text(as_json, json.dumps(told, indent=2) + "\n")
    if card:
        write_measured(depth, model or WEIGHTS / "depth", told)
    mine = told["first"]["depth"]
    if mine["abs_rel"] > BARS["abs_rel"] or any(mine[name] < BARS[name] for name in ("delta", "spearman")):
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
