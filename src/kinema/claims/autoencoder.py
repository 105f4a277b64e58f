"""How much of a clip the model's autoencoder keeps, and how long it takes.

    python -m kinema.claims.autoencoder --count 200

Bars: 30 dB PSNR on 200 held-out clips; decoding 25 frames of 128x128 in less than 2 s on two quiet cores.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from kinema.claims import options
from kinema.core.footage import as_video
from kinema.files import write_text
from kinema.metrics.control.psnr import decibels
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

SEED = 3_100_000_000  # the clips have seeds from here on
PSNR_BAR = 30.0  # dB
DECODE_BAR = 2.0  # seconds a clip


@dataclass(frozen=True, kw_only=True)
class Kept:
    """PSNR in dB and seconds for encoding and decoding, a value a clip."""

    psnr: list[float]
    encode: list[float]
    decode: list[float]

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean PSNR (normal approximation)."""
        mean, reach = statistics.fmean(self.psnr), 0.0
        if len(self.psnr) > 1:
            reach = 1.96 * statistics.stdev(self.psnr) / math.sqrt(len(self.psnr))
        return mean - reach, mean + reach


def measure(backbone: Backbone, count: int, batch: int = 20) -> Kept:
    """Held-out clips of the first curriculum through the autoencoder, one at a time."""
    values: list[float] = []
    encoding: list[float] = []
    decoding: list[float] = []
    for start in range(0, count, batch):
        seeds = range(SEED + start, SEED + min(start + batch, count))
        state, _ = simulate([sample_spec(seed, "first", "held_out") for seed in seeds])
        for frames in torch.split(render_frames(state), 1):
            video = as_video(frames)
            begun = time.perf_counter()
            latents = backbone.encode(video)
            middle = time.perf_counter()
            again = backbone.decode(latents)  # on the CPU, so that the clock sees the end of it
            encoding.append(middle - begun)
            decoding.append(time.perf_counter() - middle)
            values += decibels(again, frames).tolist()
    return Kept(psnr=values, encode=encoding, decode=decoding)


def main(
    count: Annotated[int, typer.Option(min=1, help="Held-out clips.")] = 200,
    model: options.Model = "mini",
    device: options.Device = None,
    as_json: options.AsJson = None,
) -> None:
    """Measure the autoencoder of a model; exit code 1 when a bar is missed."""
    from kinema.backbones.load import load

    kept = measure(load(model, device), count)
    low, high = kept.interval
    mean, encode, decode = statistics.fmean(kept.psnr), statistics.median(kept.encode), statistics.median(kept.decode)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    print(f"{count} held-out clips, 25 frames of 128x128, {torch.get_num_threads()} threads, load {load_average:.1f}")
    print(
        f"PSNR    {mean:.2f} dB  95% interval [{low:.2f}, {high:.2f}], least {min(kept.psnr):.2f}  (bar {PSNR_BAR:.0f})"
    )
    print(f"encode  {encode:.3f} s a clip (median)")
    print(f"decode  {decode:.3f} s a clip (median)  (bar {DECODE_BAR:.0f} on two quiet cores)")
    if as_json is not None:
        numbers: dict[str, Any] = {
            "count": count,
            "psnr": {"mean": mean, "interval": [low, high], "least": min(kept.psnr)},
            "seconds": {"encode": encode, "decode": decode},
            "threads": torch.get_num_threads(),
            "load": load_average,
        }
        write_text(as_json, json.dumps(numbers, indent=2) + "\n")
    if mean < PSNR_BAR or decode > DECODE_BAR:
        raise typer.Exit(1)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
