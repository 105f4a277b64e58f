"""`kinema techniques`: every method that can be named, and the fields of one."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Any

import typer

from kinema.cli import options

if TYPE_CHECKING:
    from kinema.core.registry import Entry, Reader

app = typer.Typer(add_completion=False)


@app.command("techniques")
def _techniques(
    name: str = typer.Argument(None, metavar="NAME", help="One of them, with its fields and defaults."),
    as_json: options.AsJson = False,
) -> None:
    """List the methods that kinema generate --technique takes and those of other commands, or explain one.

    Example: kinema techniques apg
    """
    from kinema.core.registry import find, readers, techniques

    if name is not None:
        described = describe(readers().get(name) or find(name))
        print(json.dumps(described) if as_json else "\n".join(_page(described)))
        return
    rows = [describe(entry) for entry in (*techniques().values(), *readers().values())]
    if as_json:
        print(json.dumps({"techniques": rows}))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['topic']:<10}{row['paper']:<18}{row['says'][0]}")
    print("Fields and defaults of one: kinema techniques NAME")


def describe(entry: Entry | Reader) -> dict[str, Any]:
    """What is known of a method: JSON-able; `says` is its docstring by lines, `fields` name -> kind and default."""
    missing = dataclasses.MISSING
    known = {
        field.name: {"kind": str(field.type), **({} if field.default is missing else {"default": field.default})}
        for field in dataclasses.fields(entry.cls)
        if field.init
    }
    says = inspect.cleandoc(entry.cls.__doc__ or "").splitlines()
    told = {"name": entry.name, "topic": entry.topic, "paper": entry.paper, "says": says, "fields": known}
    return {**told, "command": getattr(entry, "command", "generate")}


def _page(described: dict[str, Any]) -> list[str]:
    lines = [f"{described['name']} ({described['topic']}, {described['paper']})", "", *described["says"], "", "Fields:"]
    for name, field in described["fields"].items():
        lines.append(f"    {name}: {field['kind']}, {json.dumps(field.get('default', 'to be given'))}")
    if described["command"] != "generate":
        return [*lines, "", f"kinema {described['command']} --help"]
    example = next((name for name, field in described["fields"].items() if field["kind"] in ("float", "int")), None)
    option = "" if example is None else f":{example}={described['fields'][example].get('default', 1)}"
    return [*lines, "", f'kinema generate "..." --technique {described["name"]}{option}']
