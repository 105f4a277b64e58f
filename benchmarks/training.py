"""How fast `mini` trains: fused attention, the softmax written out, and that compiled, alternating in one process.

    python benchmarks/training.py --rounds 5

A step is forward, backward and the optimizer on a batch of whole clips in the sizes of the recipe. What is compiled
needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kinema.backbones.compiling import has_compiler
from kinema.training.attention import write_out_softmax
from kinema.training.hardware import hardware
from kinema.training.optimizer import build_optimizer
from kinema.training.text_to_video import TransformerSettings, build_transformer

TEXT_TOKENS, TEXT_DIM, CHANNELS = 48, 128, 32


def stepper(batch: int, plain: bool, compiled: bool) -> Callable[[], None]:
    """One training step of a fresh model."""
    model: Any = build_transformer(TransformerSettings(), CHANNELS, TEXT_DIM, seed=0)
    if plain:
        write_out_softmax(model)
    if compiled:
        model.compile(dynamic=False)
    optimizer = build_optimizer([model], "muon", 1e-3, (0.9, 0.99), 0.01)
    x, t = torch.randn(batch, CHANNELS, 7, 8, 8), 1000 * torch.rand(batch)
    text, wanted = torch.randn(batch, TEXT_TOKENS, TEXT_DIM), torch.randn(batch, CHANNELS, 7, 8, 8)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            v = model(x, t, text, return_dict=False)[0]
        (v.float() - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of the training step of mini.")
    parser.add_argument("--batch", type=int, default=32, help="clips of a step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON")
    given = parser.parse_args()
    steps = {"fused": stepper(given.batch, False, False), "written out": stepper(given.batch, True, False)}
    if has_compiler():
        steps["written out, compiled"] = stepper(given.batch, True, True)
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(given.rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - begun)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{hardware('cpu')}, torch {torch.__version__}, {given.batch} clips a step")
    for name, value in median.items():
        print(f"{name:24} {given.batch / value:6.1f} clips/s  {median['fused'] / value:5.2f} x")
    if given.out:
        given.out.write_text(json.dumps({"seconds": seconds, "batch": given.batch}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
