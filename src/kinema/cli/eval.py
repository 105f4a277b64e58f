"""`kinema eval`: folders of clips measured, in parallel, and continued when they were interrupted."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.evaluation.evaluate import Tell

app = typer.Typer(add_completion=False)

EVERY = 30.0  # seconds between two lines of progress, where there is no terminal


@app.command("eval")
def evaluate(
    videos: Path = typer.Argument(
        ..., metavar="VIDEOS_DIR", help="Folder of mp4, webm, gif, mkv, mov, and of folders of pictures."
    ),
    reference: Path = typer.Option(
        None, metavar="DIR", help="Clips to compare with: as a set, and those of the same name one by one."
    ),
    prompts: Path = typer.Option(
        None, metavar="FILE", help='Lines {"name": ..., "prompt": ...}; default: the prompts in the files.'
    ),
    metrics: list[str] = typer.Option(
        ["quick"], metavar="NAME[:EXTRACTOR],...", help="Metrics and presets; docs/metrics.md lists them."
    ),
    out: Path = typer.Option(None, metavar="DIR", help="Where results go; default: VIDEOS_DIR-eval."),
    workers: str = typer.Option(
        None, metavar="COUNT|ray", help="Processes; default: one for each core. ray: a Ray cluster."
    ),
    max_gigabytes: float = typer.Option(
        2.0, metavar="NUMBER", help="Frames of one clip in memory; larger ones are left out."
    ),
    restart: bool = typer.Option(False, "--restart", help="Forget what --out holds of an earlier evaluation."),
    as_json: options.AsJson = False,
) -> None:
    """Measure all clips of a folder: a table here, and JSON, CSV and a page with pictures in --out.

    Broken files are reported and left out. Ended half-way and started again, it goes on where it was.

    Example: kinema eval clips --reference real --metrics quick,frechet:world --out results
    """
    from kinema.evaluation.evaluate import evaluate as run

    out = out or default_out(videos)
    with shown("clips", f"go on with the same command; what is done is kept in {out}") as tell:
        done = run(
            videos,
            reference=reference,
            prompts=prompts,
            metrics=metrics,
            out=out,
            workers=count_of(workers),
            max_gigabytes=max_gigabytes,
            restart=restart,
            tell=tell,
        )
    if as_json:
        print(json.dumps({**done.results, "out": str(out)}))
        return
    _print(done.results, out)


def default_out(videos: Path) -> Path:
    """Beside where we are, named after the folder of clips."""
    return Path(f"{videos.resolve().name or 'videos'}-eval")


def count_of(workers: str | None) -> int | str:
    """Processes to start. Raises: KinemaError for what is neither a count nor "ray"."""
    from kinema.evaluation.runners import cores

    if workers is None or workers == "ray":
        return workers or cores()
    if not workers.isdecimal() or not 1 <= int(workers) <= 1024:
        raise KinemaError(f"workers is {workers}; use 1 to 1024, or ray")
    return int(workers)


@contextmanager
def shown(noun: str, how_to_go_on: str) -> Iterator[Tell]:
    """Tells how far it is, by a bar on a terminal and else by a line now and then; and what to do after Ctrl-C.

    What libraries print meanwhile goes where progress goes, so that stdout holds results only.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    lines = Lines(noun)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with redirect_stdout(sys.stderr), bar:
        row = bar.add_task(noun, total=None)

        def tell(done: int, count: int, failed: int) -> None:
            words = f"{noun}, {failed} failed" if failed else noun
            bar.update(row, completed=done, total=count, description=words)
            if not console.is_terminal:
                lines(done, count, failed)

        try:
            yield tell
        except KeyboardInterrupt:
            bar.stop()
            print(f"kinema: interrupted; {how_to_go_on}", file=sys.stderr)
            raise


class Lines:
    """Progress for those who are no terminal."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.before = 0  # done when it began
        self.began = self.told = 0.0

    def __call__(self, done: int, count: int, failed: int) -> None:
        now = time.monotonic()
        if not self.began:
            self.began, self.told, self.before = now, now, done
            if done:
                print(f"going on: {done} of {count} {self.noun} were done before", file=sys.stderr)
            return
        if now - self.told < EVERY:
            return
        self.told = now
        left = (now - self.began) / max(1, done - self.before) * (count - done)
        wrong = f", {failed} failed" if failed else ""
        print(f"{done} of {count} {self.noun}{wrong}, about {_time(left)} left", file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _print(results: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from kinema.cli.tables import show
    from kinema.evaluation.results import WITHOUT
    from kinema.evaluation.vbench import line
    from kinema.evaluation.words import interval, number

    say = partial(Console().print, markup=False, highlight=False, soft_wrap=True)
    left, right = ("metric", "better", "unit"), ("mean", "95% interval", "clips")
    columns = [(title, "left" if title in left else "right") for title in (*left[:2], *right, left[2])]
    rows = [
        (label, m["better"] or "", number(m["mean"]), interval(m["interval"]), str(m["n"]), m["unit"])
        for label, m in results["metrics"].items()
    ] + [
        (label, m["better"] or "", number(m["value"]), "of the set", str(m["n"]), m["unit"])
        for label, m in results["sets"].items()
    ]
    if rows:
        show(columns, rows, spare=("unit", "better", "clips"))
    if "vbench" in results:
        say(line(results["vbench"]))
    for row in results["not_measured"]:
        say(f"not measured: {row['metric']}: {row['reason']}")
    for label, m in results["metrics"].items():
        for need, count in m["without"].items():
            say(f"{label}: {count} clips without {WITHOUT[need]}")
        for why, count in m["errors"].items():
            say(f"{label}: failed on {count} clips: {why}")
    for what, rows in (("clips", results["failed"]), ("reference clips", results["failed_references"])):
        for row in rows[:10]:
            say(f"failed: {row['name']}: {row['reason']}")
        if len(rows) > 10:
            say(f"and {len(rows) - 10} more {what} failed")
    say(f"{results['measured']} of {results['clips']} clips measured")
    say(str(out / "report.html"))
