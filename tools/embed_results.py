"""Puts what docs/claims and docs/combinations.md say of the techniques into the package, for `kinema techniques`.

python tools/embed_results.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kinema.claims.bench.claim import claims
from kinema.claims.bench.page import read_all
from kinema.claims.bench.verdict import summary

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "src" / "kinema" / "cli" / "results.json"


def results() -> dict[str, Any]:
    """The families of the page with what each refuses, and of each method that was measured what was found."""
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
    return {"refused": refused, "measured": measured}


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(results(), indent=1) + "\n", encoding="utf-8")
    print(RESULTS)
