"""kinema against diffusers' own pipelines: same weights, steps, seed and type, turn by turn in one process.

    python benchmarks/engine.py --quick
    python benchmarks/engine.py --rounds 7 --out engine.json
    python benchmarks/engine.py --cached
    python benchmarks/engine.py --gpu --cached --num-inference-steps 20

Rows are `mini` and the small random models of every family that the tests build; with --gpu the layouts of real
checkpoints with random weights in bfloat16, 81 frames of 480p and 720p. Times are medians in seconds of text encoding,
denoising, decoding and saving, the first call (warm-up) apart; the ratio is diffusers' total over kinema's without
saving, with the smallest and the largest of the rounds. The last columns are the largest difference of latents and, on
a GPU, the most memory in GB. With --cached kinema is timed against itself, with each technique that computes less.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from layouts import LAYOUTS, SIZES, Layout, build

from backbones.families import Case, cases
from kinema.backbones.load import embedded, load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.registry import techniques
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.training.hardware import hardware

PROMPT, SEED = "a red ball rolls to the left on the grass, then it bounces", 7
QUICK = ("mini", "wan 2.1 t2v", "cogvideox 5b", "ltx 0.9.5 t2v", "hunyuan t2v", "mochi", "animatediff")


@dataclass
class Timed:
    """Seconds of the parts of one call."""

    parts: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    latents: Any = None
    memory: int = 0  # bytes, on a GPU

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = clock()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + clock() - begun

    @contextmanager
    def whole(self) -> Iterator[None]:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        begun = clock()
        yield
        self.total = clock() - begun
        if torch.cuda.is_available():
            self.memory = torch.cuda.max_memory_allocated()


def clock() -> float:
    """Seconds, when everything that was started on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def clocked(owner: Any, name: str, timed: Callable[[], Timed], part: str) -> None:
    """Replaces a method by itself with a clock around it."""
    method = getattr(owner, name)

    def with_clock(*args: Any, **kwargs: Any) -> Any:
        with timed().part(part):
            return method(*args, **kwargs)

    setattr(owner, name, with_clock)


class Theirs:
    """A diffusers pipeline."""

    def __init__(self, pipeline: Any, call: dict[str, Any]) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self.call, self.timed = pipeline, call, Timed()
        clocked(pipeline, "encode_prompt", lambda: self.timed, "text")
        clocked(pipeline.vae, "decode", lambda: self.timed, "decode")

    def run(self) -> Timed:
        self.timed, seen = Timed(), {}
        with self.timed.whole():
            self.pipeline(
                PROMPT,
                negative_prompt="",
                generator=torch.Generator().manual_seed(SEED),
                output_type="np",
                callback_on_step_end=lambda pipe, step, t, found: seen.update(found) or {},
                **self.call,
            )
        self.timed.latents = seen["latents"]
        return self.timed


class Ours:
    """kinema's loop."""

    def __init__(self, backbone: Any, request: dict[str, Any], guidance: list[Any]) -> None:
        self.backbone, self.guidance, self.timed = backbone, guidance, Timed()
        self.request = Request(prompt=PROMPT, seed=SEED, **request)
        clocked(backbone, "text_inputs", lambda: self.timed, "text")
        clocked(backbone, "decode", lambda: self.timed, "decode")

    def run(self, *more: Technique) -> Timed:
        self.timed, seen = Timed(), []
        guidance = [] if any(t.overrides("guide") for t in more) else self.guidance
        with self.timed.whole():
            self.frames = sample(
                self.backbone, self.request, [*guidance, *more], on_step=lambda step, x: seen.append(x)
            )
        self.timed.latents = seen[-1]
        return self.timed

    def save(self) -> float:
        """Seconds to write an mp4."""
        from kinema.video import Video

        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            Video(frames=self.frames[0].numpy(), fps=8).save(Path(folder) / "clip.mp4")
            return time.perf_counter() - begun


Sides = tuple[Theirs, Ours, Callable[[Any, Any], Any]]  # and what brings their latents into the layout of ours


def mini() -> Sides:
    """The embedded model in diffusers' WanPipeline and in kinema, at its own settings."""
    from diffusers import WanPipeline

    folder = embedded()["mini"]
    backbone, twin = load(folder), load(folder)  # apart, because both get clocks
    names = ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")
    pipeline = WanPipeline(**{name: getattr(twin, name) for name in names}, expand_timesteps=True)
    d = backbone.defaults
    size = dict(height=d.height, width=d.width, num_frames=d.num_frames, num_inference_steps=d.num_inference_steps)
    length = twin.tokenizer.model_max_length
    theirs = Theirs(pipeline, {**size, "guidance_scale": d.guidance_scale, "max_sequence_length": length})
    return theirs, Ours(backbone, size, [CFG(scale=d.guidance_scale)]), lambda a, b: a


def small(case: Case, folder: Path) -> Sides:
    """A small random model of a family."""
    import diffusers

    path = case.build(folder)
    pipeline = getattr(diffusers, case.pipeline).from_pretrained(path)
    case.mend(pipeline)
    guidance = list(case.guides) or ([CFG(scale=case.scale, low_noise_scale=case.low_scale)] if case.scale != 1 else [])
    ours = Ours(load(path, device="cpu", dtype="float32"), dict(case.request), guidance)
    return Theirs(pipeline, {**case.call, **case.guidance}), ours, case.to_latents


def large(layout: Layout, size: dict[str, int], frames: int, steps: int, device: str, dtype: torch.dtype) -> Sides:
    """A model in the layout of a checkpoint."""
    pipeline, backbone = build(layout, torch.device(device), dtype)
    size = {**size, "num_frames": frames, "num_inference_steps": steps}
    theirs = Theirs(pipeline, {**size, "guidance_scale": layout.guidance_scale})
    return theirs, Ours(backbone, size, [CFG(scale=layout.guidance_scale)]), lambda a, b: a


def compare(
    name: str, theirs: Theirs, ours: Ours, to_latents: Callable[[Any, Any], Any], rounds: int
) -> dict[str, Any]:
    """Alternating calls of both; the order changes every round."""
    warm = {"diffusers": theirs.run().total, "kinema": ours.run().total}
    found: dict[str, list[Timed]] = {"diffusers": [], "kinema": []}
    for i in range(rounds):
        sides = [("diffusers", theirs), ("kinema", ours)]
        for side, runner in sides if i % 2 else reversed(sides):
            found[side].append(runner.run())
    ratios = [a.total / b.total for a, b in zip(found["diffusers"], found["kinema"], strict=True)]
    a, b = found["diffusers"][-1].latents, found["kinema"][-1].latents
    row: dict[str, Any] = {
        "model": name,
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "difference": float((to_latents(a, b) - b).abs().max()),
        "saving": ours.save(),
    }
    for side, timed in found.items():
        parts = {part: statistics.median(t.parts.get(part, 0.0) for t in timed) for part in ("text", "decode")}
        total = statistics.median(t.total for t in timed)
        row[side] = {**parts, "denoise": total - sum(parts.values()), "total": total, "first call": warm[side]}
        row[side]["memory"] = max(t.memory for t in timed)
    return row


def savers() -> dict[str, Technique]:
    """The techniques that compute less, at their published settings."""
    return {name: entry.cls() for name, entry in techniques().items() if entry.topic == "speed"}


def cached(name: str, ours: Ours, rounds: int) -> Iterator[dict[str, Any]]:
    """kinema with each of them against kinema without, turn by turn."""
    ours.run()
    for saver, technique in savers().items():
        if technique.overrides("guide") and ours.guidance:
            technique = replace(technique, scale=ours.guidance[0].scale)
        row: dict[str, Any] = {"model": name, "technique": saver}
        try:
            ours.run(technique)
        except KinemaError as error:
            yield {**row, "refused": str(error)}
            continue
        ratios, shares = [], []
        for _ in range(rounds):
            plain, frames = ours.run(), ours.frames
            less = ours.run(technique)
            ratios.append(plain.total / less.total)
            shares.append((plain.total - plain.parts["decode"]) / (less.total - less.parts["decode"]))
        error = (frames.float() - ours.frames.float()).square().mean().item()
        yield {
            **row,
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "denoise ratio": statistics.median(shares),
            "difference": float((plain.latents - less.latents).abs().max()),
            "psnr": 10 * math.log10(255**2 / error) if error else math.inf,
        }


def show_cached(row: dict[str, Any]) -> None:
    print(f"{row['model']:24} {row['technique']:18} ", end="")
    if "refused" in row:
        print(row["refused"], flush=True)
        return
    spread = f"[{row['least']:.2f}, {row['most']:.2f}]"
    print(f"{row['ratio']:5.2f} x {spread}  without decoding {row['denoise ratio']:5.2f} x", end="")
    print(f"  {row['difference']:.1e}  {row['psnr']:.1f} dB", flush=True)


def show(row: dict[str, Any]) -> None:
    for side in ("diffusers", "kinema"):
        s = row[side]
        numbers = " ".join(f"{s[key]:8.3f}" for key in ("first call", "text", "denoise", "decode", "total"))
        print(f"{row['model'] if side == 'diffusers' else '':34} {side:10} {numbers}", end="")
        print("" if side == "diffusers" else f"  {row['ratio']:5.2f} x [{row['least']:.2f}, {row['most']:.2f}]", end="")
        memory = f"  {s['memory'] / 1e9:.2f} GB" if s["memory"] else ""
        tail = "" if side == "diffusers" else f"  {row['difference']:.1e}  saving {row['saving']:.3f}"
        print(tail + memory, flush=True)


def chosen(given: argparse.Namespace) -> dict[str, Callable[[Path], Sides]]:
    """Name -> what builds both sides, in a folder of its own."""
    if given.gpu:
        if not torch.cuda.is_available():
            raise SystemExit("--gpu needs a GPU that torch.cuda sees")
        return {
            f"{name}, {size}": lambda _, layout=layout, area=area: large(
                layout, area, 81, given.num_inference_steps, "cuda", torch.bfloat16
            )
            for name, layout in LAYOUTS.items()
            for size, area in SIZES.items()
        }
    known = {name: case for name, case in cases().items() if case.prompts and not case.images}
    found: dict[str, Callable[[Path], Sides]] = {"mini": lambda _: mini()}
    if given.cached and not given.only:
        return found
    found |= {name: lambda folder, case=case: small(case, folder) for name, case in known.items()}
    return {name: found[name] for name in QUICK} if given.quick else found


def main() -> None:
    parser = argparse.ArgumentParser(description="Time kinema against diffusers' own pipelines.")
    parser.add_argument("--quick", action="store_true", help="mini and one row a family")
    parser.add_argument("--cached", action="store_true", help="kinema with and without each cache; mini, or --only")
    parser.add_argument("--gpu", action="store_true", help="layouts of real checkpoints, on cuda")
    parser.add_argument("--num-inference-steps", type=int, default=6, help="of --gpu")
    parser.add_argument(
        "--rounds", type=int, help="timed calls of each side; default 5 (25 of small models), 3 with --gpu"
    )
    parser.add_argument("--only", nargs="+", help="rows whose names contain one of these")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    rounds = given.rounds or (3 if given.gpu else 5)
    print(
        f"{hardware('cuda' if given.gpu else 'cpu')}, torch {torch.__version__}, {rounds} rounds of the larger models"
    )
    if given.cached:
        print(f"{'':24} {'':18} without / with the technique")
    else:
        names = ("warm-up", "text", "denoise", "decode", "total")
        print(f"{'':45} {' '.join(f'{name:>8}' for name in names)}  diffusers / kinema")
    found = []
    for name, make in chosen(given).items():
        if given.only and not any(part in name for part in given.only):
            continue
        # The small models take hundredths of a second, as long as what else the machine does now and then.
        count = rounds if given.rounds or given.gpu or name == "mini" else 5 * rounds
        with tempfile.TemporaryDirectory() as folder:
            _, ours, _ = sides = make(Path(folder))
            for row in cached(name, ours, count) if given.cached else [compare(name, *sides, count)]:
                found.append(row)
                (show_cached if given.cached else show)(row)
        del sides, ours  # before the next ones are built
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
