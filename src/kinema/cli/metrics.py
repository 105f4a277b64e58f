"""`kinema metrics`: every number that can be measured, and what one means."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options

if TYPE_CHECKING:
    from kinema.metrics.metric import Metric, SetMetric

app = typer.Typer(add_completion=False)


@app.command("metrics")
def _metrics(
    name: str = typer.Argument(None, metavar="NAME", help="One of them, with its formula and source."),
    as_json: options.AsJson = False,
) -> None:
    """List the metrics that kinema eval --metrics takes, or explain one.

    Example: kinema metrics flicker
    """
    from kinema.evaluation.measures import presets
    from kinema.metrics.metric import find, metrics

    if name is not None:
        described = describe(find(name))
        print(json.dumps(described) if as_json else "\n".join(_page(described)))
        return
    rows = [describe(each) for each in metrics().values()]
    if as_json:
        print(json.dumps({"metrics": rows, "presets": presets()}))
        return
    width = max(len(row["name"]) for row in rows) + 2
    topic = None
    for row in sorted(rows, key=lambda row: (*_rank(row["topic"]), row["name"])):
        if row["topic"] != topic:
            print(f"{chr(10) if topic else ''}{row['topic'].upper()}")
            topic = row["topic"]
        looks = [f"through {row['extractor']}"] if row["extractor"] else []
        asks = ", ".join([f"needs {need}" for need in row["needs"]] + looks)
        _row(row["name"], row["summary"] + (f" ({asks})" if asks else ""), width)
    print("\nPRESETS, names that stand for several")
    for preset, meaning in presets().items():
        _row(preset, meaning, width)
    print("\nFormula, unit, range and source of one: kinema metrics NAME")


def _rank(topic: str) -> tuple[int, str]:
    """Topics in the order of the list, then those of metrics that are not kinema's own."""
    from kinema.metrics.metric import TOPICS

    return (TOPICS.index(topic) if topic in TOPICS else len(TOPICS), topic)


def _row(name: str, words: str, width: int) -> None:
    """A name and what it means, broken at the terminal's edge; one line where stdout is no terminal."""
    room = max(shutil.get_terminal_size().columns - width, 30) if sys.stdout.isatty() else len(words)
    first, *others = textwrap.wrap(words, room, break_long_words=False, break_on_hyphens=False)
    print(f"{name:<{width}}{first}", *(" " * width + line for line in others), sep="\n")


def describe(metric: Metric | SetMetric) -> dict[str, Any]:
    """What is known of a metric: JSON-able; `says` is its docstring by lines, an open end of the range is None."""
    from kinema.metrics.metric import SetMetric

    ends = [end if math.isfinite(end) else None for end in (metric.low, metric.high)]
    return {
        "name": metric.name,
        "topic": metric.topic,
        "of": "set" if isinstance(metric, SetMetric) else "clip",
        "summary": metric.summary,
        "says": inspect.cleandoc(metric.function.__doc__ or "").splitlines(),
        "unit": metric.unit,
        "range": ends,
        "better": metric.better,
        "needs": list(metric.needs),
        "extractor": metric.extractor,
        "source": metric.source,
        "sees": metric.sees,
        "ignores": metric.ignores,
    }


def _page(described: dict[str, Any]) -> list[str]:
    low, high = described["range"]
    span = f"{'-inf' if low is None else f'{low:g}'} to {'inf' if high is None else f'{high:g}'}"
    facts = {
        "of": "a set of clips" if described["of"] == "set" else "each clip",
        "unit": described["unit"],
        "range": span,
        "better": described["better"] or "neither",
        "needs": ", ".join(described["needs"]) or "frames alone",
        "extractor": described["extractor"] or "none",
        "source": described["source"],
        "sees": described["sees"],
        "ignores": described["ignores"],
    }
    lines = [f"{described['name']} ({described['topic']})", "", *described["says"], ""]
    lines += [f"{key + ':':<11}{value}" for key, value in facts.items()]
    return [*lines, "", f"kinema eval videos --metrics {described['name']}"]
