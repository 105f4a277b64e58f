"""The page of an evaluation: one HTML file that needs nothing else, no network and no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from kinema.evaluation.journal import Journal
from kinema.evaluation.results import WITHOUT, Evaluation
from kinema.evaluation.vbench import line
from kinema.evaluation.words import interval, number
from kinema.files import write_text
from kinema.metrics.metric import TOPICS

SHOWN = 3  # best clips of a metric, and worst
BINS = 24  # of a histogram
FAILED = 200  # failed clips that are listed
ARROWS = {"higher": "↑", "lower": "↓", None: ""}
LEGEND = (
    '<p class="dim">↑ higher is better, ↓ lower is better, no arrow: neither. After a colon stands the network or the '
    "method that looked. Clips that a metric does not apply to are left out.</p>"
)

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; --ink: #1c1c1e; --dim: #63636b; --line: #dcdce1; --bar: #5b7db1; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem; background: #fff; color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0; }
p { margin: .25rem 0 .75rem; }
.dim, figcaption { color: var(--dim); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--dim); font-weight: 500; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th.number { text-align: right; }
td.name, td.reason { overflow-wrap: anywhere; }
td.label, td.arrow { white-space: nowrap; }
tr.topic th { padding-top: 1rem; font-weight: 600; }
.unit { display: block; color: var(--dim); font-size: .8rem; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: 1.25rem; break-inside: avoid; }
.head { display: flex; flex-wrap: wrap; gap: .5rem 2rem; justify-content: space-between; }
.head > div { flex: 1 1 20rem; }
svg { display: block; flex: 0 0 auto; }
.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .25rem 2rem; }
h4 { font-size: .9rem; margin: .75rem 0 .25rem; }
h4 .dim { font-weight: 400; }
figure { margin: 0 0 .75rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; border-radius: 3px; }
figcaption { overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
td.name { min-width: 12rem; }
@media (max-width: 40rem) { .meaning, .unit { display: none; } }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: .2em; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="dim">$subtitle</p>
$summary
$vbench
$sets
$missing
$failed
$sections
</body>
</html>
""")

SECTION = Template("""<section id="$anchor">
<div class="head">
<div><h3>$label</h3>
<p>$meaning</p>
<p class="dim">$numbers</p></div>
$histogram
</div>
<div class="clips">$columns</div>
</section>""")

FIGURE = Template("""<figure>$image
<figcaption><b>$value</b> $name$prompt</figcaption></figure>""")


def write_report(path: Path, done: Evaluation, journal: Journal) -> None:
    """Writes the page; the frames of the clips that it shows are read from the notes."""
    results = done.results
    settings = results["settings"]
    counts = f"{results['measured']} of {results['clips']} clips measured"
    if results["references"]:
        counts += f", compared with a set of {results['references']}"
    by_topic = dict(sorted(results["metrics"].items(), key=lambda item: (_rank(item[1]["topic"]), item[0])))
    page = PAGE.substitute(
        title=html.escape(f"Evaluation of {Path(settings['videos']).name}"),
        subtitle=html.escape(f"{settings['videos']} · {counts} · kinema {settings['kinema']}"),
        summary=_summary(by_topic),
        vbench=f'<p class="dim">{html.escape(line(results["vbench"]))}</p>' if "vbench" in results else "",
        sets=_sets(results["sets"]),
        missing=_reasons("Not measured", "metric", results["not_measured"], "metric"),
        failed=_reasons("Clips that failed", "clip", results["failed"], "name")
        + _reasons("Reference clips that failed", "clip", results["failed_references"], "name"),
        sections="\n".join(_section(label, m, done, journal) for label, m in by_topic.items()),
    )
    write_text(path, page)


def _rank(topic: str) -> tuple[int, str]:
    """Topics in the order of the list, then those of metrics that are not kinema's own."""
    return (TOPICS.index(topic) if topic in TOPICS else len(TOPICS), topic)


def _anchor(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label)


Cell = tuple[str, str]  # its class in the page, and its HTML


def _table(title: str, columns: Sequence[Cell], rows: Iterable[Sequence[str] | str], note: str = "") -> str:
    """A table; `columns` are its titles with the class of their cells. A row that is a text stands across all."""
    head = "".join(f'<th class="{kind}">{name}</th>' for kind, name in columns)
    lines = []
    for row in rows:
        if isinstance(row, str):
            lines.append(f'<tr class="topic"><th colspan="{len(columns)}">{row}</th></tr>')
        else:
            cells = (f'<td class="{kind}">{cell}</td>' for (kind, _), cell in zip(columns, row, strict=True))
            lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<h2>{title}</h2>{note}<div class="wide">{table}</div>'


def _amount(value: float | None, unit: str) -> str:
    return f'{number(value)} <span class="unit">{html.escape(unit)}</span>' if unit else number(value)


def _summary(metrics: dict[str, dict[str, Any]]) -> str:
    columns = (
        ("label", "metric"), ("meaning", "what it is"), ("arrow", ""), ("number", "mean"),
        ("number", "95% interval"), ("number", "clips"),
    )  # fmt: skip
    rows: list[Sequence[str] | str] = []
    topic = None
    for label, m in metrics.items():
        if m["topic"] != topic:
            topic = m["topic"]
            rows.append(html.escape(topic))
        link = f'<a href="#{_anchor(label)}">{html.escape(label)}</a>'
        told = html.escape(m["summary"]), ARROWS[m["better"]], _amount(m["mean"], m["unit"]), interval(m["interval"])
        rows.append((link, *told, str(m["n"])))
    return _table("Clip by clip", columns, rows, LEGEND) if rows else ""


def _sets(sets: dict[str, dict[str, Any]]) -> str:
    columns = (
        ("label", "metric"), ("meaning", "what it is"), ("arrow", ""), ("number", "value"), ("number", "clips"),
        ("number", "reference"),
    )  # fmt: skip
    rows = [
        (
            html.escape(label), html.escape(m["summary"]), ARROWS[m["better"]], _amount(m["value"], m["unit"]),
            str(m["n"]), "–" if m["references"] is None else str(m["references"]),
        )
        for label, m in sets.items()
    ]  # fmt: skip
    return _table("The clips as a set", columns, rows) if rows else ""


def _reasons(title: str, first: str, rows: Sequence[dict[str, str]], key: str) -> str:
    if not rows:
        return ""
    cells = [(html.escape(row[key]), html.escape(row["reason"])) for row in rows[:FAILED]]
    more = f'<p class="dim">and {len(rows) - FAILED} more in results.json</p>' if len(rows) > FAILED else ""
    return _table(f"{title} ({len(rows)})", (("name", first), ("reason", "why")), cells) + more


def _section(label: str, m: dict[str, Any], done: Evaluation, journal: Journal) -> str:
    """All about one metric."""
    values = done.values[label]
    told = [f"mean {number(m['mean'])} {m['unit']}", f"95% interval {interval(m['interval'])}", f"{m['n']} clips"]
    told += [f"{m['not_applicable']} where it does not apply"] if m["not_applicable"] else []
    told += [f"{count} without {WITHOUT[need]}" for need, count in m["without"].items()]
    told += [f"{sum(m['errors'].values())} failed ({next(iter(m['errors']))})"] if m["errors"] else []
    better = {"higher": "Higher is better.", "lower": "Lower is better.", None: ""}[m["better"]]
    return SECTION.substitute(
        anchor=_anchor(label),
        label=html.escape(label),
        meaning=html.escape(f"{m['summary']} {better}".strip()),
        numbers=html.escape(" · ".join(told)),
        histogram=_histogram(values[~np.isnan(values)], m["unit"]),
        columns=_columns(done, label, m["better"], journal),
    )


def _columns(done: Evaluation, label: str, better: str | None, journal: Journal) -> str:
    """The clips at both ends, each with its frames."""
    found = []
    for title, chosen, alike in _ends(done.values[label], better):
        many = f' <span class="dim">{len(chosen)} of {alike} alike</span>' if alike > len(chosen) else ""
        figures = "".join(_figure(done, label, i, journal) for i in chosen)
        found.append(f"<div><h4>{title}{many}</h4>{figures}</div>")
    return "".join(found)


def _ends(values: np.ndarray, better: str | None) -> list[tuple[str, list[int], int]]:
    """Title, clips, and how many clips have the first one's value, of both ends.

    Of few clips every one stands on one side only, and none with the best value among the worst.
    """
    there = np.flatnonzero(~np.isnan(values))
    rank = (-values if better == "higher" else values)[there]
    order, back = ([int(i) for i in there[np.argsort(sign * rank, kind="stable")]] for sign in (1, -1))
    best, worst = values[order[0]], values[back[0]]
    if best == worst:
        return [("All alike", order[:SHOWN], len(order))]
    first, last = ("Lowest", "Highest") if better is None else ("Best", "Worst")
    top = [i for i in order[: min(SHOWN, (len(order) + 1) // 2)] if values[i] != worst]
    bottom = [i for i in back[:SHOWN] if values[i] != best and i not in top]
    return [(first, top, int((values == best).sum())), (last, bottom, int((values == worst).sum()))]


def _figure(done: Evaluation, label: str, index: int, journal: Journal) -> str:
    name, prompt = done.names[index], done.prompts[index]
    path = journal.strip_path(name)
    data = base64.b64encode(path.read_bytes()).decode() if path.exists() else ""
    image = f'<img alt="frames of {html.escape(name)}" src="data:image/jpeg;base64,{data}">' if data else ""
    return FIGURE.substitute(
        image=image,
        value=number(done.values[label][index]),
        name=html.escape(name),
        prompt=f"<br>“{html.escape(prompt)}”" if prompt else "",
    )


def _histogram(values: np.ndarray, unit: str, width: int = 280, height: int = 72) -> str:
    """How many clips have which values, as an inline picture.

    Below are the ends of the axis, above the highest bar its clips; of two values, the clips of both.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return ""
    two = bool(((values == low) | (values == high)).all())
    counts, _ = np.histogram(values, bins=2 if two else min(BINS, max(6, len(values))), range=(low, high))
    step, floor = width / len(counts), height + 16
    bars, told = [], []
    for i, count in enumerate(counts):
        tall = height * count / counts.max()
        bars.append(f'<rect x="{i * step:.1f}" y="{floor - tall:.1f}" width="{step - 1:.1f}" height="{tall:.1f}"/>')
        if two or i == counts.argmax():
            middle = min(max((i + 0.5) * step, 22), width - 22)
            words = f"{count} clip{'s' if count > 1 else ''}"
            told.append(f'<text x="{middle:.1f}" y="{floor - tall - 4:.1f}" text-anchor="middle">{words}</text>')
    shown = "" if two else f" {html.escape(unit)}"
    edge = step / 2 if two else 0
    for x, side, end in ((edge, "start", number(low)), (width - edge, "end", number(high) + shown)):
        told.append(f'<text x="{x:g}" y="{floor + 15}" text-anchor="{"middle" if two else side}">{end}</text>')
    return (
        f'<svg width="{width}" height="{floor + 20}" viewBox="0 0 {width} {floor + 20}" role="img" '
        f'aria-label="how many clips have which values" font-size="12"><g fill="#5b7db1">{"".join(bars)}</g>'
        f'<path d="M0 {floor}H{width}" stroke="#dcdce1"/><g fill="#63636b">{"".join(told)}</g></svg>'
    )
