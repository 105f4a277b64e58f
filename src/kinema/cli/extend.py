"""`kinema extend`: a video goes on."""

from __future__ import annotations

from pathlib import Path

import typer

from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
def extend(
    video: str = typer.Argument(
        ..., metavar="VIDEO", help="What is continued: a video, a gif or a folder of pictures."
    ),
    prompt: str = typer.Argument(None, metavar="PROMPT", help="What happens from its end on; may be left out."),
    seconds: float = typer.Option(4.0, metavar="SECONDS", help="By how much it gets longer."),
    out: str = typer.Option(None, metavar="PATH", help="NAME-longer.mp4 (default), .webm, .gif, or a folder."),
    frames: int = typer.Option(
        None, metavar="FRAMES", help="Made in one pass; default: what the model was trained on."
    ),
    overlap: int = typer.Option(5, metavar="FRAMES", help="Last frames that each pass is given: 1, 5, 9 ..."),
    negative_prompt: str = typer.Option(None, metavar="TEXT", help="What the new frames should not show."),
    height: int = typer.Option(None, metavar="PIXELS", help="Rows; default: the model's."),
    width: int = typer.Option(None, metavar="PIXELS", help="Columns; default: the model's."),
    fps: float = typer.Option(None, metavar="RATE", help="Frames per second; default: the model's."),
    num_inference_steps: int = typer.Option(None, metavar="STEPS", help="Solver steps, 1 to 1000."),
    guidance_scale: float = typer.Option(None, metavar="WEIGHT", help="How strongly to follow the prompt."),
    technique: list[str] = typer.Option(
        None, metavar="NAME[:FIELD=VALUE,...]", help="A method to use in each pass; may be given several times."
    ),
    seed: int = typer.Option(None, metavar="NUMBER", help="The same seed makes the same video; drawn if left out."),
    model: str = typer.Option(
        None, metavar="MODEL", help="'mini' (default), a folder in diffusers layout, or a hub id."
    ),
    device: str = typer.Option(None, metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default: the fastest there is."),
    dtype: str = typer.Option(None, metavar="TYPE", help="float32, bfloat16 or float16."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object on stdout."),
) -> None:
    """Continue a video by some seconds, pass after pass, each given the last frames there are.

    The model's size and frame rate count: the video is stretched to the size, and of another rate its nearest frames
    are taken. Sound that it has stays, and silence follows. The model must take clean first frames, as mini does.

    Example: kinema extend ball.mp4 "the red ball bounces" --seconds 4
    """
    from kinema.cli.generate import make
    from kinema.request import Part

    if not Path(video).exists():
        raise KinemaError(f"there is no file or folder {video}")
    out = out or str(Path(f"{Path(video).with_suffix('')}-longer.mp4").name)
    if Path(out).exists() and Path(out).samefile(video):
        raise KinemaError(f"{out} is the video that is continued; choose another name")
    options = {"seconds": seconds, "frames": frames, "overlap": overlap}
    going_on = Part(name="continuation", options={k: v for k, v in options.items() if v is not None})
    given = {
        "prompt": prompt,
        "video": video,
        "negative_prompt": negative_prompt,
        "height": height,
        "width": width,
        "fps": fps,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "techniques": [going_on, *map(Part.parse, technique or ())],
        "seed": seed,
        "model": model,
        "device": device,
        "dtype": dtype,
    }
    make({name: value for name, value in given.items() if value is not None}, None, out, as_json)
