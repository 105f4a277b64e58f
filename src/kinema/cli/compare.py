"""`kinema compare`: two folders of clips of the same names, pair by pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from kinema.cli import options
from kinema.cli.eval import count_of, shown

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    a: Path = typer.Argument(..., metavar="A_DIR", help="Folder of clips, or the --out of an evaluation."),
    b: Path = typer.Argument(..., metavar="B_DIR", help="The same with other clips of the same names."),
    reference: Path = typer.Option(None, metavar="DIR", help="Clips that both are compared with."),
    prompts: Path = typer.Option(None, metavar="FILE", help='Lines {"name": ..., "prompt": ...} for both.'),
    metrics: list[str] = typer.Option(
        None, metavar="NAME[:EXTRACTOR],...", help="Metrics and presets; default: quick, or all of two evaluations."
    ),
    out: Path = typer.Option(None, metavar="DIR", help="Keep compare.json and both evaluations there."),
    workers: str = typer.Option(None, metavar="COUNT|ray", help="Processes; default: one for each core."),
    restart: bool = typer.Option(False, "--restart", help="Forget what --out holds of an earlier comparison."),
    as_json: options.AsJson = False,
) -> None:
    """Compare the clips of B_DIR with those of A_DIR: differences with intervals, and how often B is better.

    Clips belong together by their names: make both from the same prompts and seeds.

    Example: kinema compare before after --metrics quick,temporal
    """
    from kinema.evaluation.compare import compare as run

    kept = f"what is done is kept in {out}" if out else "keep what is done with --out"
    with shown("clips", f"go on with the same command; {kept}") as tell:
        done = run(
            a,
            b,
            reference=reference,
            prompts=prompts,
            metrics=metrics or None,
            out=out,
            workers=count_of(workers),
            restart=restart,
            tell=tell,
        )
    if as_json:
        print(json.dumps(done.results))
        return
    _print(done.results)


def _print(results: dict[str, Any]) -> None:
    from rich.console import Console

    from kinema.cli.tables import show
    from kinema.evaluation.words import interval, number

    titles = ("metric", "better", "A", "B", "B - A", "95% interval", "B wins", "shown", "pairs")
    columns = [(title, "left" if title in ("metric", "better", "shown") else "right") for title in titles]
    rows = []
    for label, m in results["metrics"].items():
        wins = "" if m["win_rate"] is None else f"{m['win_rate']:.0%} ({_shares(m['win_rate_interval'])})"
        numbers = number(m["a"]), number(m["b"]), number(m["difference"]), interval(m["interval"])
        rows.append((label, m["better"] or "", *numbers, wins, _verdict(m), str(m["n"])))
    for label, m in results["sets"].items():
        values = number(m["a"]), number(m["b"]), number(m["b"] - m["a"])
        rows.append((label, m["better"] or "", *values, "of the sets", "", "", ""))
    if rows:
        show(columns, rows, spare=("better", "pairs", "B wins", "95% interval"))
    console = Console()
    for row in results["not_measured"]:
        console.print(f"not measured: {row['metric']}: {row['reason']}", markup=False, highlight=False, soft_wrap=True)
    for sentence in results["warnings"]:
        console.print(f"note: {sentence}", markup=False, highlight=False, soft_wrap=True)
    unpaired = [f"{results[f'only_in_{side}']} only in {side.upper()}" for side in "ab" if results[f"only_in_{side}"]]
    console.print(", ".join([f"{results['pairs']} pairs", *unpaired]), highlight=False)


def _shares(ends: list[float]) -> str:
    return f"{ends[0]:.0%} to {ends[1]:.0%}"


def _verdict(m: dict[str, Any]) -> str:
    """Which one is shown to be better, or higher where neither is better in itself."""
    if m["verdict"] is None:
        return ""
    return f"{m['verdict'].upper()} {'better' if m['better'] else 'higher'}"
