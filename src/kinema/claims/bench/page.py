"""docs/claims.md, made from the files of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kinema.claims.bench.claim import Claim
from kinema.claims.bench.run import Record
from kinema.claims.bench.verdict import RULE, summary

HEAD = f"""# Claims, measured again

What the paper of a method says it gains, beside what `kinema claims` finds on kinema's own small models. All arms of a
claim make the same prompts with the same seeds; the clips of one prompt are made one after the other, in another order
for each prompt, so that times can be compared. Differences are taken prompt by prompt, with a bootstrap 95% interval.
Each main measure stands beside what it could cheat on: speed beside what the judge reads, consistency beside motion.
{RULE}

`kinema claims linear_leap --prompts 32` measures one, and goes on where it was interrupted; results are kept in
`docs/claims`, a JSON for each method and model, and `kinema claims --prompts 0 --write docs/claims.md` makes this page
of them. `--quick` takes 8 prompts and few steps, and its results are kept apart and stand in no table.

A claim is a file of about 30 lines; [linear_leap.py](../src/kinema/claims/methods/linear_leap.py) is one. It has the
arms, the main comparison and its guards, by the names of [metrics](metrics.md), of costs (`seconds`, `cpu_seconds`,
`memory`) or of functions of its own. A guard has a margin, `slack` in the measure's unit or `share` of the other arm's
mean; below 0 it has to be gained. What single parts of a method should add is told beside it and decides
nothing. An arm with `as_fast_as` takes so many steps that it needs the time of another, which is measured first.
`cases` may ask for other videos than the prompts of the world. Why a claim does not hold, once it is known, is told in
its `notes`.
"""
COLUMNS = (
    "method",
    "model",
    "claim",
    "paper",
    "main measure",
    "here",
    "beside it",
    "its parts",
    "time",
    "memory",
    "verdict",
)


def page(claims: Mapping[str, Claim], records: Iterable[Record]) -> str:
    """The whole page. Quick results are left out, and those of claims that are no more or have other arms now."""
    told: dict[str, list[Record]] = {name: [] for name in claims}
    for record in records:
        claim = claims.get(record.setting["claim"])
        if claim is not None and not record.setting["quick"] and record.fits(claim):
            told[claim.name].append(record)
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    details: list[str] = []
    found_on: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, claim in claims.items():
        if not told[name]:
            lines.append(_line([f"`{name}`", claim.model, claim.says, claim.paper, *["-"] * 6, "not measured yet"]))
        for record in sorted(told[name], key=lambda r: str(r.setting["model"])):
            found = summary(claim, record.pairs)
            found_on.setdefault(name, {})[record.setting["model"]] = found
            lines.append(_row(claim, record, found))
            details += _details(claim, record, found)
    legend = "Time and memory are the method's as multiples of its baseline's."
    return "\n".join([HEAD, _tally(claims, found_on), "", *lines, "", legend, *details]) + "\n"


def read_all(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    found = [Record.read(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if record is not None]


def _tally(claims: Mapping[str, Claim], found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """How many methods hold, on the model of their claim and on any, and how many main differences are clear."""
    ours = [found[name][claim.model] for name, claim in claims.items() if claim.model in found.get(name, {})]
    holding = sum(each["verdict"] == "holds" for each in ours)
    clear = sum(each["main"]["right"] for each in ours)
    anywhere = sum(any(each["verdict"] == "holds" for each in models.values()) for models in found.values())
    return (
        f"Of {len(claims)} methods {holding} hold on the model that their claim names, and {anywhere} on at least one "
        f"that they\nwere measured on. The main difference alone is clear of zero for {clear}."
    )


def _row(claim: Claim, record: Record, found: Mapping[str, Any]) -> str:
    costs = found["cost_beside_baseline"][claim.method]
    return _line(
        [
            f"`{claim.name}`",
            record.setting["model"],
            claim.says,
            claim.paper,
            _compared(found["main"]),
            _difference(found["main"]),
            "<br>".join(map(_told, found["guards"])),
            "<br>".join(map(_told, found["parts"])) or "-",
            _times(costs["seconds"]),
            _times(costs["memory"]),
            f"**{found['verdict']}** ({found['prompts']} prompts)",
        ]
    )


def _details(claim: Claim, record: Record, found: Mapping[str, Any]) -> list[str]:
    """Means of all arms, and the reason where the claim does not hold."""
    labels = [label for label in next(iter(found["means"].values()), {}) if label != "cpu_seconds"]
    s = record.setting
    lines = ["", f"## {claim.name} on {s['model']}", "", f"{s['steps']} steps, seed {s['seed']}, {s['device']}."]
    if note := claim.notes.get(s["model"]):
        lines[-1] += f" {note}"
    lines += ["", _line(["arm", "steps", *labels]), _line(["---"] * (2 + len(labels)))]
    for arm in claim.arms:
        steps = "" if arm.own else str(record.steps.get(arm.name, arm.steps or s["steps"]))
        lines.append(_line([arm.name, steps, *(number(found["means"][arm.name].get(label)) for label in labels)]))
    return lines


def _compared(difference: Mapping[str, Any]) -> str:
    return f"{difference['label']}, {difference['arm']} - {difference['against']}"


def _told(difference: Mapping[str, Any]) -> str:
    failed = "" if difference["right"] else "**not so:** "
    return f"{failed}{_compared(difference)}: {_difference(difference)}"


def _difference(difference: Mapping[str, Any]) -> str:
    if difference["mean"] is None:
        return "-"
    interval = difference["interval"]
    told = "" if interval is None else f" [{interval[0]:+.3g}, {interval[1]:+.3g}]"
    better = "more" if difference["better"] == "higher" else "less"
    margin = difference["margin"]
    allowed = "" if not margin else f", may lose {margin:.3g}" if margin > 0 else f", has to gain {-margin:.3g}"
    return f"{difference['mean']:+.3g}{told} ({better} is better{allowed})"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
