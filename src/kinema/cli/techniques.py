"""`kinema techniques`: every method that can be named, and the fields of one."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options

if TYPE_CHECKING:
    from kinema.core.registry import Entry, Reader

SHORTEST, OTHERS = 30, 95  # characters of the last column on a terminal, at least, and of all others

app = typer.Typer(add_completion=False)


@app.command("techniques")
def _techniques(
    name: str = typer.Argument(None, metavar="NAME", help="One of them, with its fields and defaults."),
    as_json: options.AsJson = False,
) -> None:
    """List the methods that kinema generate --technique takes and those of other commands, or explain one.

    Example: kinema techniques apg
    """
    from kinema.cli.tables import show
    from kinema.core.registry import find, readers, techniques

    if name is not None:
        described = describe(readers().get(name) or find(name))
        print(json.dumps(described) if as_json else "\n".join(_page(described)))
        return
    known = [describe(entry) for entry in (*techniques().values(), *readers().values())]
    if as_json:
        print(json.dumps({"techniques": known}))
        return
    titles = ("name", "topic", "paper", "time", "claim", "what it does")
    columns = [(title, "right" if title == "time" else "left") for title in titles]
    show(columns, [_row(described) for described in known], spare=("paper", "topic"))
    print("Time is a multiple of what each was measured beside, see docs/claims.md.")
    print("Fields, families and measurements of one: kinema techniques NAME")


def describe(entry: Entry | Reader) -> dict[str, Any]:
    """What is known of a method: JSON-able.

    `says` is its docstring by lines, `fields` name -> kind and default, `refused_by` the model families that cannot run
    it with its defaults, `measured` what `kinema claims` found, model by model.
    """
    missing = dataclasses.MISSING
    known = {
        field.name: {"kind": str(field.type), **({} if field.default is missing else {"default": field.default})}
        for field in dataclasses.fields(entry.cls)
        if field.init
    }
    says = inspect.cleandoc(entry.cls.__doc__ or "").splitlines()
    told = {"name": entry.name, "topic": entry.topic, "paper": entry.paper, "says": says, "fields": known}
    results = _results()
    refused = [family for family, names in results["refused"].items() if entry.name in names]
    measured = results["measured"].get(entry.name, [])
    return {**told, "refused_by": refused, "measured": measured, "command": getattr(entry, "command", "generate")}


@cache
def _results() -> dict[str, Any]:
    """What tools/embed_results.py took from the pages of the documentation."""
    return json.loads((Path(__file__).parent / "results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _row(described: dict[str, Any]) -> tuple[str, ...]:
    measured = described["measured"]
    times = "/".join(f"{each['seconds']:.2f}x" for each in measured if each["seconds"]) or "-"
    verdict = "/".join(each["verdict"] for each in measured) or "not measured"
    says = described["says"][0]
    if sys.stdout.isatty():
        says = textwrap.shorten(says, max(SHORTEST, shutil.get_terminal_size().columns - OTHERS), placeholder=" ...")
    return described["name"], described["topic"], described["paper"], times, verdict, says


def _page(described: dict[str, Any]) -> list[str]:
    lines = [f"{described['name']} ({described['topic']}, {described['paper']})", "", *described["says"], "", "Fields:"]
    for name, field in described["fields"].items():
        lines.append(f"    {name}: {field['kind']}, {json.dumps(field.get('default', 'to be given'))}")
    lines += ["", *_found(described)]
    if described["command"] != "generate":
        return [*lines, "", f"kinema {described['command']} --help"]
    example = next((name for name, field in described["fields"].items() if field["kind"] in ("float", "int")), None)
    option = "" if example is None else f":{example}={described['fields'][example].get('default', 1)}"
    return [*lines, "", f'kinema generate "..." --technique {described["name"]}{option}']


def _found(described: dict[str, Any]) -> Iterator[str]:
    """On which families it runs, and what was measured of it."""
    if described["command"] == "generate":
        refused = ", ".join(described["refused_by"]) or "none of those that were tried"
        yield f"Model families that refuse it with its defaults: {refused}"
    for each in described["measured"]:
        main, interval = each["main"], each["main"]["interval"]
        spread = "" if interval is None else f" [{interval[0]:+.3g}, {interval[1]:+.3g}]"
        costs = [
            f"{each[key]:.2f}x the {what}" for key, what in (("seconds", "time"), ("memory", "memory")) if each[key]
        ]
        yield f"Measured on {each['model']}, {each['prompts']} prompts: {each['says']}: {each['verdict']}"
        yield f"    {main['label']}, {main['arm']} - {main['against']}: {main['mean']:+.3g}{spread}"
        if costs:
            yield f"    {' and '.join(costs)} of {each['beside']}"
