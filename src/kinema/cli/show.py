"""`kinema show`: the frames of a video on one picture, to look at it where no player is."""

from __future__ import annotations

from pathlib import Path

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
def show(
    video: options.Clip,
    out: str = typer.Option(None, metavar="PICTURE", help="Where to; default: the video's name with .png."),
    columns: int = typer.Option(None, metavar="COUNT", help="Pictures side by side."),
    count: int = typer.Option(
        None, metavar="COUNT", help="Pictures in all, evenly spread; if left out all of a short clip."
    ),
    timeline: bool = typer.Option(False, "--timeline", help="Above them a bar with what was asked for, and when."),
) -> None:
    """Lay the frames of a video out on one picture, each with its time.

    Example: kinema show ball.mp4 --count 12
    """
    from kinema import recipe
    from kinema.cli.when import check_sheet, write_sheet
    from kinema.core.keep import in_frames
    from kinema.files import check_apart
    from kinema.video import Video

    source = Path(video)
    path = check_sheet(out or str(source.parent / f"{source.stem or 'sheet'}.png"))
    assert path is not None
    check_apart([path], [source])
    clip = Video.load(source)
    made = clip.metadata.get(recipe.KEY)
    if timeline and recipe.asked(made) is None:
        raise KinemaError(f"{video} does not say what it was made from; leave --timeline out")
    write_sheet(clip, made, path, columns, count, timeline)
    print(path)
    print(f"{in_frames(len(clip))} of {clip.width}x{clip.height}, {clip.seconds:.2f} s at {clip.fps:g} fps")
    if isinstance(made, dict) and isinstance(made.get("request"), dict):
        request = made["request"]
        print(f"made from {(recipe.asked(made) or '')!r}, model {request.get('model')}, seed {request.get('seed')}")
