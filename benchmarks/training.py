"""How fast the embedded models train: fused attention, the softmax written out, and that compiled, by turns.

    python benchmarks/training.py --rounds 5
    python benchmarks/training.py --recipe mini-mm

A step is forward, backward and the optimizer on a batch of whole clips in the sizes of the recipe, without a teacher.
What is compiled needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from kinema.backbones.compiling import has_compiler
from kinema.backbones.load import load
from kinema.training.clips import Drawn
from kinema.training.denoising import Denoising
from kinema.training.hardware import hardware
from kinema.training.optimizer import build_optimizer
from kinema.training.recipe import load_section
from kinema.training.start import model_to_begin_with
from kinema.training.video_settings import Place, VideoSettings


class Noise:
    """Clips of nothing, all of one length."""

    def draw(self, step: int, size: int, generator: torch.Generator) -> Drawn:
        latents = torch.randn(size, 32, 7, 8, 8, generator=generator)
        return Drawn(latents, ["a red ball rolls to the left on the grass"] * size)


def stepper(settings: VideoSettings, folder: Path, batch: int, plain: bool, compiled: bool) -> Callable[[], None]:
    """One training step of a fresh model."""
    learning = replace(
        settings.learning,
        teacher=None,
        plain_attention=plain,
        compile="always" if compiled else "never",
        given_share=0.0,
    )
    fresh = replace(settings, learning=learning, start_from=None, text=None)
    place = Place(folder=folder, section="stage2")
    backbone = load(model_to_begin_with(fresh, place, lambda _: None), dtype="float32")
    stage = Denoising(learning, backbone, Noise(), batch_size=batch, whole=7)
    optimizer = build_optimizer(stage.modules.values(), "muon", 1e-3, (0.9, 0.99), 0.01)
    generator = torch.Generator().manual_seed(0)
    made = stage.batch(0, generator)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = stage.loss(made, generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of the training step of the embedded models.")
    parser.add_argument("--recipe", default="mini", help="mini, mini-mm or mini-unet, or a recipe of your own")
    parser.add_argument("--batch", type=int, default=32, help="clips of a step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON")
    given = parser.parse_args()
    settings = load_section(given.recipe, "stage2", VideoSettings)
    if settings.start_from is not None:  # the sizes of the network stand where it begins
        settings = replace(settings, network=load_section(given.recipe, "pictures", VideoSettings).network)
    ways = {"fused": (False, False), "written out": (True, False)}
    if has_compiler():
        ways["written out, compiled"] = (True, True)
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: stepper(settings, Path(folder), given.batch, *way) for name, way in ways.items()}
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
    print(f"{given.recipe}: {hardware('cpu')}, torch {torch.__version__}, {given.batch} clips a step")
    for name, value in median.items():
        print(f"{name:24} {given.batch / value:6.1f} clips/s  {median['fused'] / value:5.2f} x")
    if given.out:
        given.out.write_text(json.dumps({"seconds": seconds, "batch": given.batch}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
