"""`kinema transition`: what happens between two clips."""

from __future__ import annotations

from typing import Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
@options.of_a_request
def transition(
    given: dict[str, Any],
    first: str = typer.Argument(..., metavar="A", help="The clip it begins with the end of: a video or a folder."),
    second: str = typer.Argument(..., metavar="B", help="The clip it ends with the beginning of."),
    prompt: str = typer.Argument(..., metavar="PROMPT", help="What happens in between."),
    frames: int = typer.Option(1, metavar="FRAMES", help="Of each clip that are given; taken in whole latent frames."),
    num_frames: options.NumFrames = None,
    seconds: options.Seconds = None,
    out: str = typer.Option("transition.mp4", metavar="PATH", help="transition.mp4, .webm, .gif, or a folder."),
    as_json: options.AsJson = False,
) -> None:
    """Make a video from the end of one clip to the beginning of another.

    Both are stretched to the model's size. A model that can be told of clean frames is (mini); in any other they are
    put in place in every step, and what is made between them may jump.

    Example: kinema transition a.mp4 b.mp4 "the red ball rolls to the left"
    """
    from kinema.cli.generate import make

    options.check_there(first, second)
    if frames < 1:
        raise KinemaError(f"--frames is {frames}; use 1 or more")
    given |= options.known(prompt=prompt, num_frames=num_frames, seconds=seconds)
    with options.in_words("transition", "seine", first=first, second=second, frames="--frames"):
        make(options.around(given, "seine", first=first, second=second, frames=frames), None, out, as_json)
