"""docs/claims.md, made from the files of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
mean; below 0 it has to be gained. An arm with `as_fast_as` takes so many steps that it needs the time of another, which
is measured first. `cases` may ask for other videos than the prompts of the world. Why a claim does not hold, once it is
known, is told in its `notes`.
"""
COLUMNS = ("method", "model", "claim", "paper", "main measure", "here", "beside it", "time", "memory", "verdict")


def page(claims: Mapping[str, Claim], records: Iterable[Record]) -> str:
    """The whole page. Results of claims that are no more, and quick ones, are left out."""
    told: dict[str, list[Record]] = {name: [] for name in claims}
    for record in records:
        if record.setting["claim"] in told and not record.setting["quick"]:
            told[record.setting["claim"]].append(record)
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    details: list[str] = []
    chosen: list[Mapping[str, Any]] = []
    for name, claim in claims.items():
        if not told[name]:
            lines.append(_line([f"`{name}`", claim.model, claim.says, claim.paper, *["-"] * 5, "not measured yet"]))
        for record in sorted(told[name], key=lambda r: str(r.setting["model"])):
            found = summary(claim, record.pairs)
            if record.setting["model"] == claim.model:
                chosen.append(found)
            lines.append(_row(claim, record, found))
            details += _details(claim, record, found)
    legend = "Time and memory are the method's as multiples of its baseline's."
    return "\n".join([HEAD, _tally(chosen, len(claims)), "", *lines, "", legend, *details]) + "\n"


def read_all(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    found = [Record.read(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if record is not None]


def _tally(chosen: Sequence[Mapping[str, Any]], count: int) -> str:
    """How many of all methods hold, each on the model of its claim."""
    clear = sum(found["main"]["right"] for found in chosen)
    holding = sum(found["verdict"] == "holds" for found in chosen)
    return (
        f"Of {count} methods, each on the model that its claim names, {holding} hold with all that stands beside them; "
        f"the main\ndifference of {clear} is clear of zero."
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
            "<br>".join(f"{_compared(guard)}: {_difference(guard)}" for guard in found["guards"]),
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
