"""`kinema edit`: a clip with another look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)

FIELDS = {
    "source": "the clip",
    "fidelity": "--fidelity",
    "temporal_scale": "--temporal-scale",
    "structure": "--structure",
    "frames": "--frames",
    "overlap": "--overlap",
    "content": "--content",
    "adapter": "--adapter",
    "weight": "--weight",
}


@app.command()
@options.of_a_request
def edit(
    given: dict[str, Any],
    video: str = typer.Argument(..., metavar="VIDEO", help="What is edited: a video, a gif or a folder of pictures."),
    prompt: str = typer.Argument(None, metavar="PROMPT", help="What it shows then; left out with --content."),
    content: str = typer.Option(None, metavar="PICTURE", help="What it shows then, in the place of a prompt."),
    fidelity: float = typer.Option(None, metavar="SHARE", help="How exactly its structure is kept, 0 to 1: 0.8."),
    structure: str = typer.Option(None, metavar="KIND", help="What is kept: depth (default), edges, grey or flow."),
    depth: str = typer.Option(
        None, metavar="MODEL", help="What sees depth: kinema's own, or depth_anything@MODEL of transformers."
    ),
    temporal_scale: float = typer.Option(
        None, metavar="WEIGHT", help="Above 1 frames hang together more, below 1 less, as if drawn by hand."
    ),
    weight: float = typer.Option(None, metavar="WEIGHT", help="Of the structure; 1 is as it was learned."),
    adapter: str = typer.Option(
        None, metavar="FOLDER", help="Weights of gen1, from kinema train adapter gen1; default: the model's."
    ),
    lora: list[str] = options.placing(
        None, metavar="PATH[:WEIGHT]", help="Content from a few pictures: what kinema train lora made of them."
    ),
    frames: int = typer.Option(
        None, metavar="FRAMES", help="Made in one pass; default: what the model was trained on."
    ),
    overlap: int = typer.Option(None, metavar="FRAMES", help="Last frames that each pass is given: 0, 1, 5, 9 ..."),
    cuts: bool = typer.Option(True, help="Begin anew at every cut of the clip."),
    num_frames: int = options.size(None, metavar="FRAMES", help="Edit the first ones only."),
    seconds: float = options.size(None, metavar="SECONDS", help="Edit the beginning only."),
    out: str = typer.Option(None, metavar="PATH", help="NAME-edited.mp4 (default), .webm, .gif, or a folder."),
    as_json: options.AsJson = False,
) -> None:
    """Give a clip another look, by text or picture, and keep where things are (Gen-1, arXiv:2302.03011).

    The result has the clip's length, size, rate, cuts and sound. It is made at the size nearest to the clip's shape
    that the model makes, or at --height and --width, and stretched back. Long clips are made pass after pass, with no
    more memory than short ones; interrupted, the same command goes on behind the last finished pass.
    A look or thing of your own: kinema train lora with a few pictures, then --lora with its folder and the prompt that
    names it. Steadier frames: --technique controlvideo.

    Example: kinema edit ball.mp4 "a blue cube on the snow" --fidelity 0.7 --temporal-scale 1.2
    """
    from kinema import editing
    from kinema.cli.generate import make
    from kinema.layers.source import Source
    from kinema.request import Lora

    options.check_there(*[path for path in (video, content, adapter) if path is not None])
    if num_frames is not None or seconds is not None:
        num_frames = beginning(Source.open(video, cuts=cuts), num_frames, seconds)
    given |= options.known(
        prompt=editing.worded(prompt, content is not None),
        num_frames=num_frames,
        lora=[Lora.parse(text).model_dump() for text in lora] if lora else None,
    )
    fields = editing.told(
        source=video,
        content=content,
        structure=structure,
        depth=depth,
        fidelity=fidelity,
        temporal_scale=temporal_scale,
        weight=weight,
        adapter=adapter,
        frames=frames,
        overlap=overlap,
        cuts=None if cuts else False,
    )
    path = Path(out or f"{Path(video).with_suffix('').name}-edited.mp4")
    with options.in_words("edit", editing.METHOD, **FIELDS):
        make(options.around(given, editing.METHOD, **fields), None, str(path), as_json)


def beginning(source: Any, num_frames: int | None, seconds: float | None) -> int:
    """How many of the source's first frames are edited. Raises: KinemaError, where it has not as many."""
    if num_frames is not None and seconds is not None:
        raise KinemaError("--num-frames and --seconds are both the length; give one of them")
    count = num_frames if num_frames is not None else round((seconds or 0) * source.survey.fps)
    if not 1 <= count <= len(source):
        length = f"{len(source)} frames, {len(source) / source.survey.fps:g} s"
        raise KinemaError(f"{count} frames of the clip are to be edited, and it has {length}; use 1 to all of them")
    return count
