"""`kinema transition`: what happens between two clips."""

from __future__ import annotations

from pathlib import Path

import typer

from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
def transition(
    first: str = typer.Argument(..., metavar="A", help="The clip it begins with the end of: a video or a folder."),
    second: str = typer.Argument(..., metavar="B", help="The clip it ends with the beginning of."),
    prompt: str = typer.Argument(..., metavar="PROMPT", help="What happens in between."),
    frames: int = typer.Option(1, metavar="FRAMES", help="Of each clip that are given; taken in whole latent frames."),
    num_frames: int = typer.Option(None, metavar="FRAMES", help="Length; default: what the model was trained on."),
    seconds: float = typer.Option(None, metavar="SECONDS", help="Length in place of --num-frames."),
    out: str = typer.Option("transition.mp4", metavar="PATH", help="transition.mp4, .webm, .gif, or a folder."),
    negative_prompt: str = typer.Option(None, metavar="TEXT", help="What it should not show."),
    height: int = typer.Option(None, metavar="PIXELS", help="Rows; default: the model's."),
    width: int = typer.Option(None, metavar="PIXELS", help="Columns; default: the model's."),
    fps: float = typer.Option(None, metavar="RATE", help="Frames per second; default: the model's."),
    num_inference_steps: int = typer.Option(None, metavar="STEPS", help="Solver steps, 1 to 1000."),
    guidance_scale: float = typer.Option(None, metavar="WEIGHT", help="How strongly to follow the prompt."),
    technique: list[str] = typer.Option(
        None, metavar="NAME[:FIELD=VALUE,...]", help="A method to use beside it; may be given several times."
    ),
    seed: int = typer.Option(None, metavar="NUMBER", help="The same seed makes the same video; drawn if left out."),
    model: str = typer.Option(
        None, metavar="MODEL", help="'mini' (default), a folder in diffusers layout, or a hub id."
    ),
    device: str = typer.Option(None, metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default: the fastest there is."),
    dtype: str = typer.Option(None, metavar="TYPE", help="float32, bfloat16 or float16."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object on stdout."),
) -> None:
    """Make a video from the end of one clip to the beginning of another.

    Both are stretched to the model's size. A model that can be told of clean frames is (mini); in any other they are
    put in place in every step, and what is made between them may jump.

    Example: kinema transition a.mp4 b.mp4 "the red ball rolls to the left"
    """
    from kinema.cli.generate import make
    from kinema.request import Part

    for clip in (first, second):
        if not Path(clip).exists():
            raise KinemaError(f"there is no file or folder {clip}")
    between = Part(name="seine", options={"first": first, "second": second, "frames": frames})
    given = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_frames": num_frames,
        "seconds": seconds,
        "height": height,
        "width": width,
        "fps": fps,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "techniques": [between, *map(Part.parse, technique or ())],
        "seed": seed,
        "model": model,
        "device": device,
        "dtype": dtype,
    }
    make({name: value for name, value in given.items() if value is not None}, None, out, as_json)
