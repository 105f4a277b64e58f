"""`kinema metrics`: every number that can be measured, and what one means."""

from __future__ import annotations

import inspect
import json
import math
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kinema.metrics.metric import Metric, SetMetric

app = typer.Typer(add_completion=False)


@app.command("metrics")
def _metrics(
    name: str = typer.Argument(None, metavar="NAME", help="One of them, with its formula and source."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object on stdout."),
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
    width = max(len(row["name"]) for row in rows)
    for row in sorted(rows, key=lambda row: (row["topic"], row["name"])):
        needs = ", ".join(row["needs"])
        print(f"{row['name']:<{width}}  {row['topic']:<13}{needs:<19}{row['extractor'] or '':<12}{row['says'][0]}")
    print("\nPresets, names that stand for several:")
    for preset, meaning in presets().items():
        print(f"{preset:<{width}}  {meaning}")
    print("\nFormula, unit, range and source of one: kinema metrics NAME")


def describe(metric: Metric | SetMetric) -> dict[str, Any]:
    """What is known of a metric: JSON-able; `says` is its docstring by lines, an open end of the range is None."""
    from kinema.metrics.metric import SetMetric

    ends = [end if math.isfinite(end) else None for end in (metric.low, metric.high)]
    return {
        "name": metric.name,
        "topic": metric.topic,
        "of": "set" if isinstance(metric, SetMetric) else "clip",
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
