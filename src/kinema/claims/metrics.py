"""What every metric sees and what it ignores: five grades of a fault in clips of the world and in real ones.

    python -m kinema.claims.metrics --clips 8
    python -m kinema.claims.metrics --clips 8 --write docs/metrics.md

A metric has to get steadily worse along the five grades of the fault that it is meant to see, and to move by at most 2%
under the one that it should ignore. The second line writes the table into a page, below the line that says so.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from kinema.claims.clips import real_clips, world_clips
from kinema.core.errors import KinemaError, Unreachable
from kinema.files import write_text
from kinema.metrics.corruptions.corruption import corruptions
from kinema.metrics.ladder import IGNORED, Ladder, Trial, ladder
from kinema.metrics.metric import TOPICS, Metric, SetMetric, find, metrics

KINDS = {"world": world_clips, "real": real_clips}
GENERATED = "<!-- Below this line everything is written by: python -m kinema.claims.metrics --write docs/metrics.md -->"


@dataclass(frozen=True)
class Row:
    """One metric on one kind of clips: a ladder, or why there is none."""

    metric: Metric | SetMetric
    kind: str  # "world" or "real"
    ladder: Ladder | None
    reason: str = ""


def applies(metric: Metric | SetMetric, kind: str) -> bool:
    """kinema's own judge knows nothing but the world."""
    return kind == "world" or metric.extractor != "world"


def measure(metric: Metric | SetMetric, kind: str, trial: Trial) -> Row:
    """The ladder of one metric. The clips of the trial are of the kind."""
    if not applies(metric, kind):
        return Row(metric, kind, None, "its extractor knows the world only")
    try:
        found = ladder(metric, trial)
    except Unreachable:
        return Row(metric, kind, None, f"needs {metric.extractor}, which has to be fetched")
    return Row(metric, kind, found, "" if found else f"nothing in {kind} clips that it applies to")


@functools.lru_cache(maxsize=2)
def trial_of(kind: str, count: int) -> Trial:
    """Clips of a kind, kept while one metric after the other asks for them."""
    return Trial(KINDS[kind](count))


def tried(chosen: Sequence[Metric | SetMetric], count: int) -> Iterator[Row]:
    """All of them on world clips and on real ones, those with one fault together; progress goes to stderr."""
    begun, done, alike = time.monotonic(), 0, sorted(chosen, key=lambda m: (m.clips, m.sees))
    for kind in KINDS:
        for metric in alike:
            yield measure(metric, kind, trial_of(kind, max(count, metric.clips)))
            done += 1
            left = (time.monotonic() - begun) / done * (2 * len(chosen) - done)
            print(f"\r{done} of {2 * len(chosen)}, {left:.0f} s left  {metric.name:30}", end="", file=sys.stderr)
    print(file=sys.stderr)


def page(found: Sequence[Row]) -> str:
    """The tables in Markdown: what each metric is, what it sees and ignores, and what the faults are."""
    lines: list[str] = []
    chosen = {row.metric.name: row.metric for row in found}
    for topic in TOPICS:
        here = [m for m in chosen.values() if m.topic == topic]
        if here:
            lines += ["", f"## {topic.capitalize() if topic != 'vbench' else 'VBench'}", ""]
            lines += ["| metric | what it is | unit, range, better | needs | source |", "|---|---|---|---|---|"]
            lines += [_described(m) for m in here]
    lines += ["", "## What each metric sees and ignores", "", _explained(found), ""]
    lines += ["| metric | clips | sees | 0 | 1 | 2 | 3 | 4 | 5 | steady | ignores | moved |", "|" + "---|" * 12]
    lines += [_measured(row) for row in found if applies(row.metric, row.kind)]
    lines += ["", "## The faults", "", "| fault | what it does |", "|---|---|"]
    lines += [f"| `{name}` | {_first_paragraph(each.function)} |" for name, each in corruptions().items()]
    return "\n".join(lines) + "\n"


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((function.__doc__ or "").partition("\n\n")[0].split()).replace("|", "&#124;")


def _described(metric: Metric | SetMetric) -> str:
    ends = [
        "-∞" if math.isinf(metric.low) else f"{metric.low:g}",
        "∞" if math.isinf(metric.high) else f"{metric.high:g}",
    ]
    needs = [*metric.needs, *([f"`{metric.extractor}`"] if metric.extractor else [])]
    facts = f"{metric.unit}, {' to '.join(ends)}, {metric.better or 'neither'}"
    cells = (f"`{metric.name}`", metric.summary, facts, ", ".join(needs) or "frames", metric.source)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _explained(found: Sequence[Row]) -> str:
    held = [row.ladder.holds for row in found if row.ladder]
    return (
        f"{sum(held)} of {len(held)} ladders hold. Columns 0 to 5 are the mean over the clips (or the number of the "
        "set) without the fault and with its five grades; moved is how far the fault that should be ignored changes it "
        "at its worst, relative to its value or, where that is more, to what the fifth grade changes. What uses "
        "`world` is tried on clips of the world alone."
    )


def _measured(row: Row) -> str:
    m, found = row.metric, row.ladder
    if found is None:
        return f"| `{m.name}` | {row.kind} | {m.sees} | {row.reason} | | | | | | | {m.ignores} | |"
    name = m.name if m.extractor is None else f"{m.name}:{m.offline or m.extractor}"
    values = " | ".join(f"{value:.4g}" for value in found.values)
    moved = f"{found.moved:.1%}" if found.moved <= IGNORED else f"**{found.moved:.1%}**"
    steady = "yes" if found.steady else "**no**"
    return f"| `{name}` | {row.kind} | {m.sees} | {values} | {steady} | {m.ignores} | {moved} |"


def text(row: Row) -> str:
    """One line for a terminal."""
    m, found = row.metric, row.ladder
    if found is None:
        return f"{row.kind:6}{m.name:32}{row.reason}"
    values = " ".join(f"{value:9.4g}" for value in found.values)
    verdict = "holds" if found.holds else "DOES NOT HOLD"
    return f"{row.kind:6}{m.name:32}{m.sees:14}{values}  {m.ignores:12}{found.moved:6.1%}  {verdict}"


def write(path: Path, found: Sequence[Row]) -> None:
    """Replaces all of a page that stands below the line GENERATED. Raises: KinemaError when the page has none."""
    before, mark, _ = path.read_text(encoding="utf-8").partition(GENERATED)
    if not mark:
        raise KinemaError(f"{path} has no line {GENERATED!r}; put it where the tables belong")
    write_text(path, before + mark + "\n" + page(found))


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Metrics; default: all.")] = None,
    clips: Annotated[int, typer.Option(min=2, help="Clips of the world, and as many real ones.")] = 8,
    write_to: Annotated[Path | None, typer.Option("--write", metavar="PAGE", help="Write the tables there.")] = None,
) -> None:
    """Put faults into clips and tell which metrics notice."""
    if write_to is not None and names:
        raise typer.BadParameter("the page holds all metrics; leave the names or --write out")
    chosen = [find(name) for name in names] if names else list(metrics().values())
    found = []
    for row in tried(chosen, clips):
        print(text(row))
        found.append(row)
    if write_to is not None:
        write(write_to, sorted(found, key=lambda row: (row.metric.name, row.kind == "real")))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    typer.run(main)
