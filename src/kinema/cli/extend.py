"""`kinema extend`: a video goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
@options.of_a_request
def extend(
    given: dict[str, Any],
    video: str = typer.Argument(
        ..., metavar="VIDEO", help="What is continued: a video, a gif or a folder of pictures."
    ),
    prompt: str = typer.Argument(None, metavar="PROMPT", help="What happens from its end on; may be left out."),
    seconds: float = typer.Option(4.0, metavar="SECONDS", help="By how much it gets longer."),
    frames: int = typer.Option(
        None, metavar="FRAMES", help="Made in one pass; default: what the model was trained on."
    ),
    overlap: int = typer.Option(5, metavar="FRAMES", help="Last frames that each pass is given: 1, 5, 9 ..."),
    out: str = typer.Option(None, metavar="PATH", help="NAME-longer.mp4 (default), .webm, .gif, or a folder."),
    as_json: options.AsJson = False,
) -> None:
    """Continue a video by some seconds, pass after pass, each given the last frames there are.

    Where the clip says what it was made from, the prompt goes on from that: "it bounces" is the ball on the grass.
    The model's size and frame rate count: the video is stretched to the size, and of another rate its nearest frames
    are taken. Sound that it has stays, and silence follows. The model must take clean first frames, as mini does.

    Example: kinema extend ball.mp4 "the red ball bounces" --seconds 4
    """
    from kinema.cli.generate import make
    from kinema.timeline import Prompt

    options.check_there(video)
    path = Path(out or f"{Path(video).with_suffix('').name}-longer.mp4")
    if prompt and Prompt.parse(prompt).timeline.timed:
        raise KinemaError("the prompt gives times, which would count from the clip's end; write 'a, then b' without")
    given |= options.known(prompt=behind(video, prompt), video=video)
    make(
        options.around(given, "continuation", seconds=seconds, frames=frames, overlap=overlap), None, str(path), as_json
    )


def behind(video: str, prompt: str | None) -> str | None:
    """The prompt as it reads behind that of a clip's recipe, with its subject and its scene; told where it differs."""
    from kinema import recipe
    from kinema.timeline import Prompt, Timeline
    from kinema.video import Video

    if not prompt or not prompt.strip():
        return prompt
    told = recipe.asked(Video.load(video).metadata.get(recipe.KEY))
    said = Timeline.parse(prompt)
    read = said.completed() if told is None else said.behind(Prompt.parse(told).timeline)
    if told is None or read == said:
        return prompt
    print(f"goes on from {told!r}: {read}", file=sys.stderr)
    return str(read)
