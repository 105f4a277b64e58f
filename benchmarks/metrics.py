"""Frames scored a second, against a plain loop and against peers; and the memory of 100 and of 10,000 clips.

python benchmarks/metrics.py --clips 64 --rounds 3 --out metrics.json
python benchmarks/metrics.py --memory 100 10000

The plain loop reads one file after the other and calls one metric after the other on its frames. Peers: PySceneDetect
reading the same files for cuts, torchmetrics for the Frechet distance of the same features. `--memory` evaluates that
many short clips in a process of its own and prints the most memory that it and its workers held.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

METRICS = ("flicker", "warping_error", "cuts", "camera_motion_residual", "colourfulness", "spatial_high_frequency")
FEATURES = 128  # numbers a clip, as the extractor "world" gives


def write_clips(folder: Path, count: int, frames: int, side: int) -> int:
    """Clips of the world as mp4; beyond 64 the same ones again under other names. Returns the frames of all."""
    from dataclasses import replace

    from kinema.video import Video
    from kinema.world.motion import simulate
    from kinema.world.render import render_frames
    from kinema.world.sample import sample_spec

    folder.mkdir(parents=True)
    for i in range(count):
        path = folder / f"{i:05d}.mp4"
        if i >= 64:
            os.link(folder / f"{i % 64:05d}.mp4", path)
            continue
        spec = replace(sample_spec(i, "first"), num_frames=frames, height=side, width=side, events=())
        Video(render_frames(simulate([spec])[0])[0].numpy(), 8.0).save(path)
    return count * frames


def plain(folder: Path, names: tuple[str, ...]) -> None:
    """What a user would write: a loop over files, a loop over metrics."""
    from kinema.metrics.metric import find
    from kinema.video import Video

    for path in sorted(folder.glob("*.mp4")):
        video = Video.load(path)
        for name in names:
            find(name)(video.frames, fps=video.fps)


def ours(folder: Path, names: tuple[str, ...]) -> None:
    import kinema

    with tempfile.TemporaryDirectory() as out:
        kinema.evaluate(folder, metrics=",".join(names), out=out, workers=os.cpu_count() or 1)


def scenedetect(folder: Path) -> None:
    """PySceneDetect reads and decodes the files itself."""
    from scenedetect import ContentDetector, detect

    for path in sorted(folder.glob("*.mp4")):
        detect(str(path), ContentDetector())


def our_distance(sets: list[np.ndarray]) -> float:
    from kinema.metrics.distribution.frechet import frechet

    return frechet(*sets)


def torchmetrics_distance(sets: list[np.ndarray]) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        num_features = FEATURES

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    peer = FrechetInceptionDistance(feature=Given(), normalize=True, input_img_size=(1, 1, FEATURES))
    for real, rows in zip((False, True), sets, strict=True):
        for start in range(0, len(rows), 1024):
            peer.update(torch.from_numpy(rows[start : start + 1024]), real=real)
    return float(peer.compute())


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The middle of several runs; the first one warms up and does not count."""
    work()
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def throughput(clips: int, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []

    def compare(what: str, unit: str, amount: float, mine: Callable[[], object], other: Callable[[], object]) -> None:
        a, b = seconds(mine, rounds), seconds(other, rounds)
        rows.append({"what": what, "unit": unit, "ours": amount / a, "other": amount / b, "ratio": b / a})
        print(f"{what:52} {amount / a:10.0f} {amount / b:10.0f} {unit:>10} {b / a:6.2f}x", flush=True)

    print(f"{'':52} {'kinema':>10} {'other':>10} {'':>10}  ratio")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "clips"
        frames = write_clips(folder, clips, 25, 128)
        name = f"{len(METRICS)} metrics against a plain loop"
        compare(name, "frames/s", frames, lambda: ours(folder, METRICS), lambda: plain(folder, METRICS))
        cuts = ("cuts",)
        compare(
            "cuts against a plain loop", "frames/s", frames, lambda: ours(folder, cuts), lambda: plain(folder, cuts)
        )
        compare(
            "cuts against PySceneDetect", "frames/s", frames, lambda: ours(folder, cuts), lambda: scenedetect(folder)
        )
    rng = np.random.default_rng(0)
    sets = [rng.normal(shift, 1, (20_000, FEATURES)).astype(np.float32) for shift in (0.0, 0.1)]
    a, b = our_distance(sets), torchmetrics_distance(sets)
    print(f"Frechet distance {a:.6f}, torchmetrics {b:.6f}, relative difference {abs(a - b) / b:.1e}")
    what = "Frechet distance against torchmetrics"
    compare(what, "clips/s", 40_000, lambda: our_distance(sets), lambda: torchmetrics_distance(sets))
    return rows


PROBE = """
import os, sys
from pathlib import Path
import kinema

def held(process):  # VmHWM, the most memory that a process has held; of its workers the largest
    told = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(told["VmHWM"].split()[0]) / 1024

def workers(process):
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield child
        yield from workers(child)

most = 0.0
def tell(done, count, failed):
    global most
    if done and done % 50 == 0:
        most = max(most, *map(held, workers(os.getpid())))

if __name__ == "__main__":
    kinema.evaluate(sys.argv[1], reference=sys.argv[1], metrics="flicker,frechet:world", out=sys.argv[2], workers=2,
                    tell=tell)
    print(held(os.getpid()), most)
"""


def memory(counts: list[int]) -> list[dict[str, float]]:
    """MiB at most of the process and of its largest worker, for each number of clips. Reads /proc: Linux only."""
    rows = []
    print(f"{'clips':>7} {'process':>10} {'worker':>10} {'seconds':>8}")
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            write_clips(Path(place) / "clips", count, 5, 32)
            begun = time.perf_counter()
            (Path(place) / "probe.py").write_text(PROBE)
            command = [sys.executable, f"{place}/probe.py", f"{place}/clips", f"{place}/out"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            took = time.perf_counter() - begun
        own, worker = map(float, said[-2:])
        rows.append({"clips": count, "process_mib": own, "worker_mib": worker, "seconds": took})
        print(f"{count:>7} {own:>8.0f} M {worker:>8.0f} M {took:>8.1f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="+", metavar="CLIPS", help="measure memory instead")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = memory(args.memory) if args.memory else throughput(args.clips, args.rounds)
    if args.out:
        args.out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
