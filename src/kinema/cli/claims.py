"""`kinema claims`: what papers say of their methods, measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.claims.bench.claim import Claim

app = typer.Typer(add_completion=False)

QUICK = 8  # prompts


@app.command("claims")
def _claims(
    names: list[str] = typer.Argument(None, metavar="[NAME ...]", help="Methods; default: all that have a claim."),
    model: str = typer.Option(None, metavar="MODEL", help="Default: the one of the kind that each paper used."),
    prompts: int = typer.Option(None, metavar="COUNT", help="Default: 32, with --quick 8. 0 measures nothing."),
    quick: bool = typer.Option(False, "--quick", help="Few steps; results are kept apart and stand in no table."),
    out: Path = typer.Option(None, metavar="DIR", help="Where results are kept; default: docs/claims, or claims."),
    write: Path = typer.Option(None, metavar="FILE", help="Write the table of all results of --out as Markdown."),
    seed: int = typer.Option(7, metavar="NUMBER", help="Prompt i is made with seed + i."),
    restart: bool = typer.Option(False, "--restart", help="Forget what --out holds of these claims."),
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure again what the papers of methods claim, each beside its baseline and what it could cheat on.

    Ended half-way and started again, it goes on where it was.

    Example: kinema claims linear_leap --model mini --prompts 32 --write docs/claims.md
    """
    from kinema.claims.bench import page
    from kinema.claims.bench.claim import claims, find
    from kinema.files import check_writable, make_folder, write_text

    chosen = [find(name) for name in names] if names else list(claims().values())
    count = prompts if prompts is not None else QUICK if quick else 32
    if not 0 <= count <= 1000:
        raise KinemaError(f"--prompts is {count}; use 0 to 1000")
    if write is not None:
        check_writable(write)
    folder = out or Path("docs/claims" if Path("docs").is_dir() else "claims")
    if count == 0 and write is None:
        raise KinemaError(f"--prompts 0 measures nothing; add --write FILE for the table of what is kept in {folder}")
    if count == 0 and not page.read_all(folder):
        raise KinemaError(f"{folder} holds no results to write; measure some first, or name another folder with --out")
    make_folder(folder)
    found = _measured(chosen, model, count, folder, seed, quick, restart, device, dtype) if count else []
    if write is not None:
        write_text(write, page.page(claims(), page.read_all(folder)))
    if as_json:
        print(json.dumps({"claims": found, "out": str(folder)}))
    elif found:
        _print(found, folder)


def _measured(
    chosen: list[Claim],
    model: str | None,
    count: int,
    folder: Path,
    seed: int,
    quick: bool,
    restart: bool,
    device: str | None,
    dtype: str | None,
) -> list[dict[str, Any]]:
    """A summary for each claim, in their order; a model is loaded once for claims that follow each other."""
    from kinema.backbones.load import load
    from kinema.claims.bench.run import measure, place
    from kinema.claims.bench.verdict import summary
    from kinema.cli.eval import shown

    found: list[dict[str, Any]] = []
    loaded: tuple[str, Any] = ("", None)
    for claim in chosen:
        name = model or claim.model
        if loaded[0] != name:
            loaded = (name, load(name, device, dtype))
        path = place(folder, claim, name, quick)
        with shown(f"clips of {claim.name}", f"go on with the same command; what is done is kept in {folder}") as tell:
            record = measure(claim, loaded[1], path, prompts=count, seed=seed, quick=quick, restart=restart, tell=tell)
        told = {"method": claim.name, "model": record.setting["model"], "file": str(path)}
        found.append(told | summary(claim, record.pairs))
    return found


def _print(found: list[dict[str, Any]], folder: Path) -> None:
    from kinema.cli.tables import show

    titles = ("method", "model", "prompts", "measure", "difference", "95% interval", "time", "memory", "verdict")
    columns = [(t, "right" if t in ("prompts", "difference", "time", "memory") else "left") for t in titles]
    rows = []
    for told in found:
        costs = told["cost_beside_baseline"].get(told["main"]["arm"], {})
        times = [f"{costs[key]:.2f}x" if costs.get(key) else "-" for key in ("seconds", "memory")]
        for i, each in enumerate((told["main"], *told["guards"], *told["parts"])):
            interval = each["interval"]
            rows.append(
                (
                    *((told["method"], told["model"], str(told["prompts"])) if i == 0 else ("", "", "")),
                    f"{each['label']}, {each['arm']} - {each['against']}",
                    "-" if each["mean"] is None else f"{each['mean']:+.3g}",
                    "-" if interval is None else f"{interval[0]:+.3g} .. {interval[1]:+.3g}",
                    *(times if i == 0 else ("", "")),
                    told["verdict"] if i == 0 else ("so" if each["right"] else "NOT so"),
                )
            )
    show(columns, rows, spare=("memory", "prompts", "model"))
    print(folder)
