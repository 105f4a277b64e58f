"""Memory of a video eight times the trained length, beside that of one pass of the model, in processes of their own.

    python benchmarks/long_memory.py
    python benchmarks/long_memory.py --technique "freenoise talc" --frames 201 --steps 4 --out long_memory.json

Each process is the command line, `kinema generate`, from its start to the written file; what is told is the largest
resident memory that it ever had, as the system counts it when it ends, libraries and weights among it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHORT = "a red ball bounces on the grass"
LONG = "a red ball bounces on the grass, then it grows, then it rolls to the left, then it rolls to the right"


def measure(model: str, frames: int, steps: int, techniques: list[str], prompt: str) -> dict[str, Any]:
    """One video: seconds, and the largest resident memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kinema", "generate", prompt, "--model", model, "--num-frames", str(frames)]
        command += ["--num-inference-steps", str(steps), "--seed", "7", "--out", str(Path(folder) / "video.mp4")]
        command += [word for name in techniques for word in ("--technique", name)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        unit = 1 if sys.platform == "darwin" else 1024  # bytes
        seconds = round(time.perf_counter() - began, 1)
        return {"techniques": techniques, "frames": frames, "seconds": seconds, "MB": usage.ru_maxrss * unit / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--frames", type=int, default=201, help="of the long video")
    parser.add_argument("--steps", type=int, default=4, help="solver steps")
    parser.add_argument("--technique", action="append", help='names with spaces between, as "freenoise talc"')
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    asked = parser.parse_args()
    ways = asked.technique or ["continuation", "gen_l_video:stride=4", "freenoise talc", "vidrd"]
    short = measure(asked.model, 25, asked.steps, [], SHORT)
    print(f"one pass, 25 frames: {short['MB']:.0f} MB, {short['seconds']} s")
    rows = []
    for way in ways:
        rows.append(measure(asked.model, asked.frames, asked.steps, way.split(), LONG))
        rows[-1]["times"] = round(rows[-1]["MB"] / short["MB"], 3)
        print(
            f"{way}, {asked.frames} frames: {rows[-1]['MB']:.0f} MB, {rows[-1]['times']} times, {rows[-1]['seconds']} s"
        )
    if asked.out:
        asked.out.write_text(json.dumps({"model": asked.model, "short": short, "long": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
