"""`kinema transfer`: a new scene that moves as a clip does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
def transfer(
    reference: str = typer.Argument(..., metavar="REFERENCE", help="Whose motion: a video, or a folder of pictures."),
    prompt: str = typer.Argument(..., metavar="PROMPT", help="What the new video shows."),
    positions: bool = typer.Option(
        False, "--positions", help="Optimise the positions of the tokens, which can be kept, and not the latents."
    ),
    save_tables: str = typer.Option(
        None, metavar="FILE", help="Keep the positions for other prompts (safetensors); means --positions."
    ),
    tables: str = typer.Option(
        None, metavar="FILE", help="Use positions that were kept, without optimising; means --positions."
    ),
    lr: float = typer.Option(
        None, metavar="RATE", help="How far each step of the optimiser goes; falls to half. Default: 0.002."
    ),
    until: float = typer.Option(
        None, metavar="LEVEL", help="Noise level down to which motion is guided, 1 to 0. Default: 0.895."
    ),
    iterations: int = typer.Option(None, metavar="COUNT", help="Steps of the optimiser in each solver step."),
    block: int = typer.Option(None, metavar="BLOCK", help="Whose attention is compared; default: the middle one."),
    inject: bool = typer.Option(True, help="Let the first block read the reference while motion is guided."),
    out: str = typer.Option(None, metavar="PATH", help="out.mp4 (default), .webm, .gif, or a folder for pictures."),
    negative_prompt: str = typer.Option(None, metavar="TEXT", help="What the video should not show."),
    num_frames: int = typer.Option(None, metavar="FRAMES", help="Length; the reference is stretched to it."),
    height: int = typer.Option(None, metavar="PIXELS", help="Rows; default: the model's."),
    width: int = typer.Option(None, metavar="PIXELS", help="Columns; default: the model's."),
    fps: float = typer.Option(None, metavar="RATE", help="Frames per second; default: the model's."),
    num_inference_steps: int = typer.Option(None, metavar="STEPS", help="Solver steps, 1 to 1000."),
    guidance_scale: float = typer.Option(None, metavar="WEIGHT", help="How strongly to follow the prompt."),
    technique: list[str] = typer.Option(
        None, metavar="NAME[:FIELD=VALUE,...]", help="Another method beside; may be given several times."
    ),
    seed: int = typer.Option(None, metavar="NUMBER", help="The same seed makes the same video; drawn if left out."),
    model: str = typer.Option(
        None, metavar="MODEL", help="'mini' (default), a folder in diffusers layout, or a hub id."
    ),
    device: str = typer.Option(None, metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default: the fastest there is."),
    dtype: str = typer.Option(None, metavar="TYPE", help="float32, bfloat16 or float16."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object on stdout."),
) -> None:
    """Make a video of something else that moves as a clip does (DiTFlow, arXiv:2412.07776).

    What moves in the reference is found in the model's attention, so any clip will do. With --save-tables the motion
    is kept in a file, and --tables gives it to other prompts at no cost.

    Example: kinema transfer ball.mp4 "a blue cube on the snow" --out cube.mp4
    """
    from kinema.cli.generate import make
    from kinema.request import Part

    if not Path(reference).exists():
        raise KinemaError(f"there is no file or folder {reference}")
    if tables and save_tables:
        raise KinemaError("--tables uses positions and --save-tables makes new ones; give one of them")
    by_positions = positions or bool(tables or save_tables)
    options: dict[str, Any] = {
        "reference": reference,
        "tables": tables,
        "save": save_tables,
        "lr": None if lr is None else (lr, lr / 2),
        "noise_range": None if until is None else (1.0, until),
        "iterations": iterations,
        "block": block,
        "inject": None if inject else False,
    }
    options = {name: value for name, value in options.items() if value is not None}
    following = Part(name="ditflow_positions" if by_positions else "ditflow", options=options)
    given = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "fps": fps,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "techniques": [following, *map(Part.parse, technique or ())],
        "seed": seed,
        "model": model,
        "device": device,
        "dtype": dtype,
    }
    make({name: value for name, value in given.items() if value is not None}, None, out, as_json)
