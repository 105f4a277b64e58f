"""The ratios that the technique magcache wants to know of a model: how the size of what its blocks add changes.

    python -m kinema.claims.magcache --model mini --prompts 8

Ma et al., "MagCache", 2025, arXiv:2506.09045, find that they hardly depend on the prompt. `--card` writes them into the
model's card.json, where the technique looks for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from kinema.claims import options
from kinema.files import write_text
from kinema.speed.magcache import CARD, MagCache, measured_ratios
from kinema.world.prompts import read_prompts

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.request import Request


def calibrate(backbone: Backbone, requests: Sequence[Request]) -> list[float]:
    """A ratio for each step, the mean over the requests, sampled one by one with the model's own guidance."""
    from kinema.core.loop import sample
    from kinema.guidance.cfg import plain_guidance

    found: list[list[float]] = []
    technique = MagCache(calibrate=True)

    def read(step: Any, x: Any) -> None:
        if step.index == step.count - 1:
            found.append(measured_ratios(step.run.state[technique]))

    for request in requests:
        sample(backbone, request, [*plain_guidance(backbone.defaults), technique], on_step=read)
    return [round(sum(ratios) / len(ratios), 5) for ratios in zip(*found, strict=True)]


def main(
    model: options.Model = "mini",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts, from the start of the list of adherence.")] = 8,
    seed: options.Seed = 7,
    steps: options.Steps = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    card: Annotated[bool, typer.Option(help="Write the ratios into the model's card.json.")] = False,
) -> None:
    """Measure the ratios of a model for magcache."""
    from kinema.backbones.load import load
    from kinema.request import Request

    backbone = load(model, device, dtype)
    texts = [p.text for p in read_prompts("adherence", prompts)]
    requests = [Request(prompt=text, seed=seed + i, num_inference_steps=steps) for i, text in enumerate(texts)]
    ratios = calibrate(backbone, requests)
    print(json.dumps(ratios))
    if card:
        enter_in_card(backbone.folder.path, ratios)


def enter_in_card(folder: Path, ratios: Sequence[float]) -> None:
    path = folder / "card.json"
    card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps({**card, CARD: list(ratios)}, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
