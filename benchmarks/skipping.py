"""Methods that leave calls of the network out, or parts of them, against the plain run and against fewer plain steps.

    python benchmarks/skipping.py
    python benchmarks/skipping.py --clips 4 --only mini-unet --out skipping.json

All rows take the same prompts and seeds, turn by turn in one process with one thread. Seconds are CPU time of the
denoising of one clip, the median; the ratio is that of the plain run over the row's. The error is that of the clean
latents against the plain run's, root mean square over that of the plain run's own, the mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kinema.backbones.load import load
from kinema.core.loop import denoise
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.speed.faster_diffusion import FasterDiffusion
from kinema.speed.linear_leap import LinearLeap
from kinema.speed.token_merging import TokenMerging

PROMPTS = ("a red ball rolls to the left on the grass", "a blue cube bounces", "a green ring rolls to the right")
# Model -> steps of the plain run, and rows: name -> steps (None: all) and techniques beside the guidance.
ROWS: dict[str, tuple[int, dict[str, tuple[int | None, Sequence[Technique]]]]] = {
    "mini": (
        30,
        {
            "plain": (None, []),
            "plain, 16 steps": (16, []),
            "linear_leap": (None, [LinearLeap()]),
            "linear_leap at 0.5": (None, [LinearLeap(at=0.5)]),
            "token_merging": (None, [TokenMerging()]),
            "linear_leap + token_merging": (None, [LinearLeap(), TokenMerging()]),
            "linear_leap at 0.5 + token_merging": (None, [LinearLeap(at=0.5), TokenMerging()]),
        },
    ),
    "mini-unet": (
        50,
        {
            "plain": (None, []),
            "plain, 30 steps": (30, []),
            "faster_diffusion": (None, [FasterDiffusion()]),
            "faster_diffusion, one by one": (None, [FasterDiffusion(parallel=False)]),
            "faster_diffusion, every 4th": (None, [FasterDiffusion(every=4)]),
        },
    ),
}


def measure(name: str, clips: int) -> list[dict[str, Any]]:
    """One row a method of a model."""
    backbone, (steps, rows) = load(name, device="cpu", dtype="float32"), ROWS[name]
    guide = CFG(scale=backbone.defaults.guidance_scale)
    seconds: dict[str, list[float]] = {row: [] for row in rows}
    errors: dict[str, list[float]] = {row: [] for row in rows}
    for clip in range(-1, clips):  # the first is a warm-up of few steps
        plain = None
        for row, (count, parts) in rows.items():
            request = Request(
                prompt=PROMPTS[clip % len(PROMPTS)],
                num_inference_steps=4 if clip < 0 else count or steps,
                seed=7 + clip,
            )
            begun = time.process_time()
            latents = denoise(backbone, request, [guide, *parts])[0].double()
            took = time.process_time() - begun
            plain = latents if plain is None else plain
            if clip >= 0:
                seconds[row].append(took)
                errors[row].append(float((latents - plain).square().mean().sqrt() / plain.square().mean().sqrt()))
    first = statistics.median(seconds["plain"])
    return [
        {
            "model": name,
            "row": row,
            "seconds": statistics.median(seconds[row]),
            "ratio": first / statistics.median(seconds[row]),
            "error": statistics.mean(errors[row]),
        }
        for row in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--only", choices=list(ROWS))
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = [row for name in ([args.only] if args.only else ROWS) for row in measure(name, args.clips)]
    print("| model | row | seconds | ratio | error |\n|---|---|---|---|---|")
    for row in found:
        print(f"| `{row['model']}` | {row['row']} | {row['seconds']:.2f} | {row['ratio']:.2f}x | {row['error']:.3f} |")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
