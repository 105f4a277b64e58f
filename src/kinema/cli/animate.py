"""`kinema animate`: a photo begins to move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
@options.of_a_request
def animate(
    given: dict[str, Any],
    photo: str = typer.Argument(..., metavar="PHOTO", help="The first frame: PNG, JPEG or WebP."),
    prompt: str = typer.Argument(None, metavar="PROMPT", help="What happens; left out for a model without words."),
    intensity: float = typer.Option(
        None, metavar="0..10", help="How much moves, 0 hardly anything; default: what the model makes of it."
    ),
    stretch: bool = typer.Option(False, "--stretch", help="Stretch the photo to the video's shape; else it is cut."),
    num_frames: options.NumFrames = None,
    seconds: options.Seconds = None,
    out: options.Out = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a video that begins with a photo, and say how much moves (LivePhoto, arXiv:2312.02928).

    The middle of the photo is cut to the proportions of the video, which are the model's unless --height and --width
    say otherwise. --intensity wants a model with an adapter for it, as mini has.

    Example: kinema animate ball.png "the ball rolls to the left" --intensity 8 --out rolling.mp4
    """
    from kinema.cli.generate import make
    from kinema.files import check_apart

    if intensity is not None and not 0 <= intensity <= 10:
        raise KinemaError(f"--intensity is {intensity:g}; use 0 (hardly anything moves) to 10")
    check_apart([Path(out or "out.mp4")], [photo])
    given |= options.known(prompt=prompt, num_frames=num_frames, seconds=seconds)
    given["image"] = first_frame(photo, given, stretch)
    if intensity is not None:
        given = options.around(given, "livephoto", intensity=intensity)
    make(given, None, out, as_json)


def first_frame(photo: str, given: dict[str, Any], stretch: bool) -> str:
    """The photo as the request takes it: its path, or what is left of it when it is cut to the video's proportions.

    Raises: KinemaError when it cannot be read, or for sizes that the model cannot make.
    """
    from kinema.backbones.load import planner
    from kinema.pictures import address, cut, open_picture
    from kinema.request import Request

    picture = open_picture(photo, "photo")
    if stretch:
        return photo
    request = Request(**given)
    _, height, width, *_ = planner(request.model, request.device, request.dtype).backbone.settle([request])
    return photo if picture.width * height == picture.height * width else address(cut(picture, height, width))
