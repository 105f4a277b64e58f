"""`kinema show`: the frames of a video on one picture, to look at it where no player is."""

from __future__ import annotations

from pathlib import Path

import typer

from kinema.core.errors import KinemaError

app = typer.Typer(add_completion=False)


@app.command()
def show(
    video: str = typer.Argument(..., metavar="VIDEO", help="mp4, webm, gif, or a folder of pictures."),
    out: str = typer.Option(None, metavar="PICTURE", help="Where to; default: the video's name with .png."),
    columns: int = typer.Option(None, metavar="COUNT", help="Pictures side by side."),
    count: int = typer.Option(None, metavar="COUNT", help="Pictures in all, evenly spread; at most 25 if left out."),
) -> None:
    """Lay the frames of a video out on one picture, each with its time.

    Example: kinema show ball.mp4 --count 12
    """
    from kinema import recipe
    from kinema.files import check_writable, replacing
    from kinema.video import PICTURES, Video, contact_sheet

    source = Path(video)
    path = Path(out) if out else source.parent / f"{source.stem or 'sheet'}.png"
    if path.suffix.lower() not in PICTURES:
        raise KinemaError(f"cannot write {path}: use {', '.join(PICTURES)}")
    check_writable(path)
    if path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a folder")
    clip = Video.load(source)
    sheet = contact_sheet(clip, columns=columns, count=count)
    with replacing(path) as temporary:
        sheet.save(temporary)
    print(path)
    print(f"{len(clip)} frames of {clip.width}x{clip.height}, {clip.seconds:.2f} s at {clip.fps:g} fps")
    made = clip.metadata.get(recipe.KEY)
    if isinstance(made, dict) and isinstance(made.get("request"), dict):
        request = made["request"]
        print(f"made from {request.get('prompt')!r}, model {request.get('model')}, seed {request.get('seed')}")
