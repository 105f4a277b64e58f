"""`kinema world`: clips of the procedural world, with everything that is true about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.world.clip import Clip

app = typer.Typer(add_completion=False, no_args_is_help=True)

SHEET_FRAMES = 6  # of each clip, on the contact sheet
SHEET_CLIPS = 32  # clips on the contact sheet, at most
BATCH = 4  # clips drawn together


@app.callback()
def world() -> None:
    """Draw clips of a small 3D world, with everything that is true about them."""


@app.command()
def sample(
    out: Path = typer.Option(..., metavar="FOLDER", help="Where to; made if it is not there."),
    count: int = typer.Option(16, metavar="COUNT", help="How many clips."),
    curriculum: str = typer.Option("full", metavar="NAME", help="The part of the world: first, pairs or full."),
    split: str = typer.Option("train", metavar="NAME", help="train, held_out (combinations no training sees) or all."),
    seed: int = typer.Option(0, metavar="NUMBER", help="Seed of the first clip; the others follow."),
    height: int = typer.Option(128, metavar="PIXELS", help="Rows."),
    width: int = typer.Option(128, metavar="PIXELS", help="Columns."),
    num_frames: int = typer.Option(25, metavar="COUNT", help="Frames of each clip."),
    fps: float = typer.Option(8.0, metavar="RATE", help="Frames per second."),
    device: str = typer.Option("cpu", metavar="DEVICE", help="Where to draw: cpu, cuda, cuda:1."),
) -> None:
    """Write clips: for each a folder with clip.mp4, truth.safetensors and clip.json; and a contact sheet of all.

    truth.safetensors holds cameras, depth, instance masks, forward flow, tracks and boxes.

    Example: kinema world sample --count 4 --out clips
    """
    from dataclasses import replace

    from kinema.backbones.load import pick_device
    from kinema.files import make_folder, replacing, write_text
    from kinema.video import rows_sheet
    from kinema.world.clip import render_clips
    from kinema.world.curricula import get_curriculum
    from kinema.world.sample import sample_spec

    if not 1 <= count <= 100_000:
        raise KinemaError(f"count is {count}; use 1 to 100000")
    if not 0.001 <= fps <= 1000:
        raise KinemaError(f"fps is {fps:g}; use 0.001 to 1000")
    if max(height, width) > 4096 or num_frames > 10_000:
        raise KinemaError(
            f"a clip of {num_frames} frames of {height}x{width} is too large; use at most 10000 frames and 4096 pixels "
            "a side"
        )
    part: Any = replace(get_curriculum(curriculum), height=height, width=width, num_frames=num_frames, fps=fps)
    specs = [sample_spec(seed + i, part, split) for i in range(count)]  # type: ignore[arg-type]
    pick_device(device)
    make_folder(out)
    index: list[dict[str, Any]] = []
    shown: list[Clip] = []
    with progress(count) as advance:
        for first in range(0, count, BATCH):
            for clip in render_clips(specs[first : first + BATCH], device=device, batch=BATCH):
                folder = clip.save(out / f"{clip.spec.seed:06d}")
                index.append({"folder": folder.name, "caption": clip.caption, "seed": clip.spec.seed})
                if len(shown) < SHEET_CLIPS:
                    shown.append(clip)
                advance()
    with replacing(out / "sheet.png") as temporary:
        rows_sheet([c.frames.numpy() for c in shown], [c.caption for c in shown], SHEET_FRAMES).save(temporary)
    write_text(out / "clips.json", json.dumps(index, indent=1, ensure_ascii=False) + "\n")
    print(out / "sheet.png")
    print(f"{count} clips of {num_frames} frames, {width}x{height}, with truth, in {out}")


@contextmanager
def progress(count: int) -> Iterator[Any]:
    """A progress bar on a terminal; gives the function to call after each clip."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("clips", total=count)
        yield lambda: bar.advance(task)
