"""Puts what docs/claims and docs/combinations.md say of the techniques into the package, and into their catalogue.

python tools/embed_results.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kinema.claims.bench.claim import claims
from kinema.claims.bench.page import read_all
from kinema.claims.bench.verdict import summary
from kinema.cli.techniques import describe
from kinema.core.registry import READING_TOPICS, TOPICS, readers, techniques

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "src" / "kinema" / "cli" / "results.json"
CATALOGUE = ROOT / "docs" / "catalogue.md"
HEADINGS = {
    "guidance": "Guidance",
    "long": "Longer videos",
    "events": "What happens when",
    "camera": "The camera",
    "structure": "What stays of a clip",
    "motion": "Motion",
    "quality": "Things, places and how they move",
    "speed": "Speed",
    "understanding": "Reading clips",
}
HEAD = """# Catalogue of techniques

Every published method that kinema has. Each is named with `--technique NAME[:FIELD=VALUE,...]` of `kinema generate`;
its formula, its fields, what it does otherwise than its paper, and the families that refuse it are told by
`kinema techniques NAME`. Fields that need a clip, boxes or words have [a syntax](cli.md#fields-of-techniques).

"Measured" is the verdict of [the claims](claims.md) on kinema's own small models, which are not those of the papers,
and the time beside the arm that is named. [Techniques together](combinations.md) says what runs with what.
`python tools/embed_results.py` makes this page.
"""


def results() -> dict[str, Any]:
    """The families of the page with what each refuses, and of each method that was measured what was found.

    What was found on the model of the claim comes first.
    """
    table = (ROOT / "docs" / "combinations.md").read_text(encoding="utf-8").partition("## On the families")[2]
    rows = re.findall(r"^\| ([^|`]+) \| (.*) \|$", table, flags=re.MULTILINE)
    refused = {family: re.findall(r"`(\w+)`", names) for family, names in rows if family != "family"}
    measured: dict[str, list[dict[str, Any]]] = {}
    for record in read_all(ROOT / "docs" / "claims"):
        claim = claims().get(record.setting["claim"])
        if claim is None or record.setting["quick"] or not record.fits(claim):
            continue
        found = summary(claim, record.pairs)
        costs = found["cost_beside_baseline"][claim.method]
        told = {key: found[key] for key in ("verdict", "prompts")} | {"model": record.setting["model"]}
        main = {key: found["main"][key] for key in ("label", "arm", "against", "mean", "interval")}
        measured.setdefault(claim.name, []).append(
            {**told, "says": claim.says, "main": main, "beside": claim.baseline, **costs}
        )
    for name, each in measured.items():
        each.sort(key=lambda found: found["model"] != claims()[name].model)
    return {"refused": refused, "measured": measured}


def catalogue() -> str:
    """The page of all methods, from the registry and what is embedded."""
    known = [describe(entry) for entry in (*techniques().values(), *readers().values())]
    lines = [HEAD]
    for topic in (*TOPICS, *READING_TOPICS):
        of_it = [described for described in known if described["topic"] == topic]
        if of_it:
            lines += [f"## {HEADINGS[topic]}", "", "| name | what it does | paper | measured | example |"]
            lines += ["|---|---|---|---|---|", *map(_row, of_it), ""]
    return "\n".join(lines)


def _row(described: dict[str, Any]) -> str:
    number = described["paper"].removeprefix("arXiv:")
    command = described["example"].replace("|", "\\|")
    if described["command"] == "generate":
        command = re.sub(r'^kinema generate ("[^"]*" )?', "", command)
    cells = (
        f"`{described['name']}`",
        described["does"].rstrip("."),
        f"[{number}](https://arxiv.org/abs/{number})",
        "<br>".join(_verdicts(described)) or "no",
        f"`{command}`",
    )
    return f"| {' | '.join(cells)} |"


def _verdicts(described: dict[str, Any]) -> Iterator[str]:
    for each in described["measured"]:
        link = f"claims.md#{described['name']}-on-{each['model']}"
        time = "" if each["seconds"] is None else f", {each['seconds']:.2f}x the time of {each['beside']}"
        memory = each["memory"]
        told = "" if memory is None or abs(memory - 1) < 0.05 else f", {memory:.2f}x the memory"
        yield f"[{each['verdict']}]({link}) on `{each['model']}`{time}{told}"


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(results(), indent=1) + "\n", encoding="utf-8")
    CATALOGUE.write_text(catalogue(), encoding="utf-8")
    print(RESULTS, CATALOGUE, sep="\n")
