"""`kinema score`: what the judge reads from a video, beside what a prompt asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.metrics.agreement import Row

app = typer.Typer(add_completion=False)

MARKS = {True: "yes", False: "NO", None: "-"}


@app.command()
def score(
    video: options.Clip,
    prompt: str = typer.Option(None, metavar="TEXT", help="What was asked for; default: the prompt in the file."),
    judge: Path = typer.Option(None, metavar="FOLDER", help="Another judge than the one inside kinema."),
    as_json: options.AsJson = False,
) -> None:
    """Read what a video shows and compare it with a prompt.

    What the prompt does not mention is shown, but not counted.

    Example: kinema score ball.mp4 --prompt "a red ball rolls to the left on the grass"
    """
    from kinema import recipe
    from kinema.metrics.agreement import all_right, compare, unknown_words
    from kinema.metrics.judge import Judge
    from kinema.timeline import Prompt
    from kinema.video import Video
    from kinema.world.reading import parse_caption

    clip = Video.load(Path(video))
    if prompt is None:
        prompt = recipe.asked(clip.metadata.get(recipe.KEY))
    if not prompt or not prompt.strip():
        raise KinemaError(f"{video} does not say what it was made from; say what was asked for with --prompt")
    reader = Judge.load(judge)
    asked = parse_caption(Prompt.parse(prompt).text)
    strange = unknown_words(asked, reader.config)
    if strange:
        raise KinemaError(f"the judge cannot tell {', '.join(strange)}; ask for things of the first curriculum")
    rows = compare(asked, reader.read(clip.frames, clip.fps))
    counted = [row for row in rows if row.right is not None]
    right = sum(bool(row.right) for row in counted)
    if as_json:
        result = {
            "video": video,
            "prompt": prompt,
            "rows": [row.to_dict() for row in rows],
            "right": right,
            "asked": len(counted),
            "all_right": all_right(rows) if counted else None,
        }
        print(json.dumps(result, indent=2))
        return
    _print(prompt, rows, right, len(counted))


def _print(prompt: str, rows: list[Row], right: int, asked: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=None)
    for title in ("", "asked", "read", "sure", "right"):
        table.add_column(title, justify="right" if title == "sure" else "left")
    for row in rows:
        style = {True: "green", False: "red", None: "dim"}[row.right]
        table.add_row(
            row.attribute, row.asked or "", row.read, f"{row.confidence:.0%}", f"[{style}]{MARKS[row.right]}[/]"
        )
    console = Console()
    console.print(prompt, markup=False, highlight=False)
    console.print(table)
    console.print(f"{right} of {asked} right" if asked else "the prompt asks for nothing that the judge can read")
