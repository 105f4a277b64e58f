"""kinema against diffusers' own pipelines: same weights, steps, seed and type, turn by turn in one process.

    python benchmarks/engine.py --quick
    python benchmarks/engine.py --rounds 7 --out engine.json

Rows are `mini` and the small random models of every family that the tests build. Times are medians in seconds of text
encoding, denoising, decoding and saving, the first call (warm-up) apart; the ratio is diffusers' total over kinema's
without saving, with the smallest and the largest of the rounds. The last column is the largest difference of latents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from backbones.families import Case, cases
from kinema.backbones.load import embedded, load
from kinema.core.loop import sample
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.training.hardware import hardware

PROMPT, SEED = "a red ball rolls to the left on the grass, then it bounces", 7
QUICK = ("mini", "wan 2.1 t2v", "cogvideox 5b", "ltx 0.9.5", "hunyuan t2v", "mochi", "animatediff")


@dataclass
class Timed:
    """Seconds of the parts of one call."""

    parts: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    latents: Any = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - begun


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
        begun = time.perf_counter()
        self.pipeline(
            PROMPT,
            negative_prompt="",
            generator=torch.Generator().manual_seed(SEED),
            output_type="np",
            callback_on_step_end=lambda pipe, step, t, found: seen.update(found) or {},
            **self.call,
        )
        self.timed.total, self.timed.latents = time.perf_counter() - begun, seen["latents"]
        return self.timed


class Ours:
    """kinema's loop."""

    def __init__(self, backbone: Any, request: dict[str, Any], guidance: list[Any]) -> None:
        self.backbone, self.guidance, self.timed = backbone, guidance, Timed()
        self.request = Request(prompt=PROMPT, seed=SEED, **request)
        clocked(backbone, "text_inputs", lambda: self.timed, "text")
        clocked(backbone, "decode", lambda: self.timed, "decode")

    def run(self) -> Timed:
        self.timed, seen = Timed(), []
        begun = time.perf_counter()
        self.frames = sample(self.backbone, self.request, self.guidance, on_step=lambda step, x: seen.append(x))
        self.timed.total, self.timed.latents = time.perf_counter() - begun, seen[-1]
        return self.timed

    def save(self) -> float:
        """Seconds to write an mp4."""
        from kinema.video import Video

        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            Video(frames=self.frames[0].numpy(), fps=8).save(Path(folder) / "clip.mp4")
            return time.perf_counter() - begun


def mini() -> tuple[Theirs, Ours, Callable[[Any, Any], Any]]:
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


def small(case: Case, folder: Path) -> tuple[Theirs, Ours, Callable[[Any, Any], Any]]:
    """A small random model of a family."""
    import diffusers

    path = case.build(folder)
    pipeline = getattr(diffusers, case.pipeline).from_pretrained(path)
    case.mend(pipeline)
    guidance = list(case.guides) or ([CFG(scale=case.scale, low_noise_scale=case.low_scale)] if case.scale != 1 else [])
    ours = Ours(load(path, device="cpu", dtype="float32"), dict(case.request), guidance)
    return Theirs(pipeline, {**case.call, **case.guidance}), ours, case.to_latents


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
    return row


def show(row: dict[str, Any]) -> None:
    for side in ("diffusers", "kinema"):
        s = row[side]
        numbers = " ".join(f"{s[key]:8.3f}" for key in ("first call", "text", "denoise", "decode", "total"))
        print(f"{row['model'] if side == 'diffusers' else '':34} {side:10} {numbers}", end="")
        print("" if side == "diffusers" else f"  {row['ratio']:5.2f} x [{row['least']:.2f}, {row['most']:.2f}]", end="")
        print("" if side == "diffusers" else f"  {row['difference']:.1e}  saving {row['saving']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time kinema against diffusers' own pipelines.")
    parser.add_argument("--quick", action="store_true", help="mini and one row a family, three rounds")
    parser.add_argument("--rounds", type=int, help="timed calls of each side; default 5, 3 with --quick")
    parser.add_argument("--only", nargs="+", help="rows whose names contain one of these")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    rounds = given.rounds or (3 if given.quick else 5)
    known = {name: case for name, case in cases().items() if case.prompts and not case.images}
    names = ["mini", *known]
    if given.quick:
        names = [name for name in names if name in QUICK]
    if given.only:
        names = [name for name in names if any(part in name for part in given.only)]
    print(f"{hardware('cpu')}, torch {torch.__version__}, {rounds} rounds")
    print(f"{'':34} {'':10} {'warm-up':>8} {'text':>8} {'denoise':>8} {'decode':>8} {'total':>8}  diffusers / kinema")
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            parts = mini() if name == "mini" else small(known[name], Path(folder))
            rows.append(compare(name, *parts, rounds))
            show(rows[-1])
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
