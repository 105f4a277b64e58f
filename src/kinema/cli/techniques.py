"""`kinema techniques`: every method that can be named, and the fields of one."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options
from kinema.cli.examples import example

if TYPE_CHECKING:
    from kinema.core.registry import Entry, Reader

WIDEST = 100  # characters of a line of prose where there is no terminal
SHORT = {"holds in part": "in part", "does not hold here": "not here", "too few prompts": "few prompts"}

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
    rows = [_row(described) for described in known]
    show(columns, rows, spare=("paper", "topic"), cut=True)
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST
    for line in (
        "Claim and time are on the model of the kind that the paper used, the time a multiple of what it was measured "
        "beside; docs/claims.md has the rest.",
        "Fields, an example, families and all measurements of one: kinema techniques NAME",
    ):
        print(textwrap.fill(line, room))


def describe(entry: Entry | Reader) -> dict[str, Any]:
    """What is known of a method: JSON-able.

    `does` is what it does in a sentence, `says` its docstring by lines, `fields` name -> kind and default, `refused_by`
    the model families that cannot run it with its defaults, `measured` what `kinema claims` found, model by model.
    """
    missing = dataclasses.MISSING
    known = {
        field.name: {"kind": str(field.type), **({} if field.default is missing else {"default": field.default})}
        for field in dataclasses.fields(entry.cls)
        if field.init
    }
    says = inspect.cleandoc(entry.cls.__doc__ or "").splitlines()
    does = inspect.cleandoc(sys.modules[entry.cls.__module__].__doc__ or "").partition("\n")[0]
    told = {"name": entry.name, "topic": entry.topic, "paper": entry.paper, "does": does, "says": says, "fields": known}
    results = _results()
    refused = [family for family, names in results["refused"].items() if entry.name in names]
    measured = results["measured"].get(entry.name, [])
    command = getattr(entry, "command", "generate")
    return {
        **told,
        "refused_by": refused,
        "measured": measured,
        "command": command,
        "example": example(entry.name),
    }


@cache
def _results() -> dict[str, Any]:
    """What tools/embed_results.py took from the pages of the documentation."""
    return json.loads((Path(__file__).parent / "results.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _row(described: dict[str, Any]) -> tuple[str, ...]:
    """A line of the list; of several measurements that on the model of the kind of the paper, which is the first."""
    time, verdict = "-", "not measured"
    for each in described["measured"][:1]:
        time = f"{each['seconds']:.2f}x" if each["seconds"] else "-"
        verdict = f"{SHORT.get(each['verdict'], each['verdict'])}, {each['model']}"
    return described["name"], described["topic"], described["paper"], time, verdict, described["does"]


def _page(described: dict[str, Any]) -> list[str]:
    width = min(shutil.get_terminal_size((WIDEST, 0)).columns, WIDEST + 20)
    lines = [f"{described['name']} ({described['topic']}, {described['paper']})", described["does"], ""]
    lines += [*joined(described["says"]), "", "Fields:"]
    for name, field in described["fields"].items():
        lines.append(f"    {name}: {field['kind']}, {json.dumps(field.get('default', 'to be given'))}")
    lines += ["", *_found(described), "", "Example:"]
    return [*chain.from_iterable(_wrapped(line, width) for line in lines), f"    {described['example']}"]


def joined(lines: Sequence[str]) -> list[str]:
    """Lines of a paragraph as one; a heading with a colon begins one, and what is set in stands alone."""
    found: list[str] = []
    for line in lines:
        begins = not line or line[0] == " " or re.match(r"[A-Z][\w ]+:", line)
        if begins or not found or not found[-1] or found[-1][0] == " ":
            found.append(line)
        else:
            found[-1] += f" {line}"
    return found


def _wrapped(line: str, width: int) -> list[str]:
    left = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line, width, subsequent_indent=left, break_on_hyphens=False) or [""]


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
