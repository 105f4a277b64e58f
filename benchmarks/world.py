"""Clips a second of the renderer, by size, batch and threads. Prints a table; `--out FILE` also writes JSON.

python benchmarks/world.py --threads 1 2 --batch 4 16 --seconds 3 --out world.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from kinema.world.motion import simulate
from kinema.world.render import render, render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec, SceneState

SIZES = ((64, 17), (128, 25))  # pixels, frames


def make_state(batch: int, side: int, frames: int, curriculum: str) -> SceneState:
    """Scenes of a curriculum, seeds 0, 1, ..., at a size and length."""
    specs = []
    for seed in range(batch):
        spec = sample_spec(seed, curriculum)
        specs.append(SceneSpec(**{**vars(spec), "height": side, "width": side, "num_frames": frames}))
    return simulate(specs)[0]


def measure(draw, state: SceneState, seconds: float) -> tuple[float, float]:
    """Clips a second by the clock, and by the processor time that was used."""
    cuda = state.centre.is_cuda
    draw(state)  # tables and caches
    clips, start, start_cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        draw(state)
        clips += len(state.kind)
        if cuda:
            torch.cuda.synchronize()
    return clips / (time.perf_counter() - start), clips / max(time.process_time() - start_cpu, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row of the table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--curriculum", default="first", help="a curriculum of kinema.world.sample")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()

    rows = []
    print(
        f"{'size':>8} {'frames':>6} {'what':>7} {'batch':>5} {'threads':>7} {'clips/s':>8} {'per CPU s':>9} {'load':>5}"
    )
    for side, frames in SIZES:
        for batch in args.batch:
            state = make_state(batch, side, frames, args.curriculum).to(args.device)
            for threads in args.threads if args.device == "cpu" else args.threads[:1]:
                torch.set_num_threads(threads)
                for what, draw in (("frames", render_frames), ("all", render)):
                    wall, cpu = measure(draw, state, args.seconds)
                    load = os.getloadavg()[0]
                    rows.append(
                        {"side": side, "frames": frames, "what": what, "batch": batch, "threads": threads}
                        | {"clips_per_second": wall, "clips_per_cpu_second": cpu, "load_average": load}
                    )
                    print(
                        f"{side:>4}x{side:<3} {frames:>6} {what:>7} {batch:>5} {threads:>7}"
                        f" {wall:>8.1f} {cpu:>9.1f} {load:>5.1f}",
                        flush=True,
                    )
    if args.out:
        machine = {"device": args.device, "processor": platform.machine(), "cores": os.cpu_count()}
        text = json.dumps({"machine": machine, "torch": torch.__version__, "rows": rows}, indent=1)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
