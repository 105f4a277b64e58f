"""docs/claims.md, made from the files of results."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kinema.claims.bench.claim import COSTS, Arm, Claim
from kinema.claims.bench.run import Record
from kinema.claims.bench.verdict import RULE, summary
from kinema.core.registry import readers, techniques

HEAD = f"""# Claims, measured again

What the paper of a method says it gains, beside what `kinema claims` finds on kinema's own small models. All arms of a
claim make the same prompts with the same seeds; the clips of one prompt are made one after the other, in another order
for each prompt. Differences are taken prompt by prompt, with a bootstrap 95% interval. Each main measure stands beside
what it could cheat on: speed beside what the judge reads, consistency beside motion.
{RULE}
"""
FOOT = """
## How to measure

`kinema claims linear_leap --prompts 32` measures one, and goes on where it was interrupted; results are kept in
`docs/claims`, a JSON for each method and model, and `kinema claims --prompts 0 --write docs/claims.md` makes this page
of them. `--quick` takes 8 prompts and few steps, and its results are kept apart and stand in no table.

A claim is a file of about 30 lines; [linear_leap.py](../src/kinema/claims/methods/linear_leap.py) is one. It has the
arms, the main comparison and its guards, by the names of [metrics](metrics.md), of costs or of functions of its own. A
guard has a margin, `slack` in the measure's unit or `share` of the other arm's mean; below 0 it has to be gained. What
single parts of a method should add is told beside it and decides nothing. An arm with `as_fast_as` takes so many steps
that it needs the time of another, which is measured first. `cases` may ask for other videos than the prompts of the
world. What is known of why a claim does not hold is told in its `notes`.
"""
MARKS = {"holds": "✔", "holds in part": "◐", "does not hold here": "✘", "too few prompts": "…"}
COST_MEANS = {
    "seconds": "Wall time of the steps, which others on the machine change.",
    "cpu_seconds": "Processor time of the steps.",
    "memory": "Peak of the process, MB, with its libraries and weights.",
}
Result = tuple[Claim, Record, Mapping[str, Any]]


def page(claims: Mapping[str, Claim], records: Iterable[Record]) -> str:
    """The whole page. Quick results are left out, and those of claims that are no more or have other arms now."""
    results: list[Result] = []
    for record in records:
        claim = claims.get(record.setting["claim"])
        if claim is not None and not record.setting["quick"] and record.fits(claim):
            results.append((claim, record, summary(claim, record.pairs)))
    order = [*MARKS]
    results.sort(key=lambda r: (order.index(r[2]["verdict"]), r[0].name, r[0].model != r[1].setting["model"]))
    lines = [HEAD, tally(results), "", *_table(results, [c for n, c in claims.items() if n not in _names(results)])]
    for claim, record, found in sorted(results, key=lambda r: (r[0].name, r[0].model != r[1].setting["model"])):
        lines += _section(claim, record, found)
    return "\n".join([*lines, *_measures([claim for claim, *_ in results]), FOOT])


def read_all(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their names."""
    found = [Record.read(path) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if record is not None]


def tally(results: Sequence[Result]) -> str:
    """How many methods hold, in full and in part, on the model of their claim and on any."""
    said: dict[str, dict[str, str]] = {}
    for claim, record, found in results:
        said.setdefault(claim.name, {})["own" if record.setting["model"] == claim.model else "other"] = found["verdict"]
    own = [models["own"] for models in said.values() if "own" in models]
    best = [min(models.values(), key=[*MARKS].index) for models in said.values()]
    return (
        f"Of {len(said)} methods that were measured, {own.count('holds')} hold on the model that their claim names, "
        f"and {own.count('holds in part')} in part.\n"
        f"On whichever model they do best it is {best.count('holds')}, and {best.count('holds in part')} in part."
    )


def _names(results: Sequence[Result]) -> set[str]:
    return {claim.name for claim, *_ in results}


def _table(results: Sequence[Result], missing: Sequence[Claim]) -> Iterator[str]:
    columns = ("", "method", "model", "what is claimed", "main result", "time")
    yield _line(columns)
    yield _line(["---"] * len(columns))
    for claim, record, found in results:
        model = record.setting["model"]
        main = found["main"]
        count = f"{found['prompts']} prompts"
        told = [MARKS[found["verdict"]], f"[{claim.name}](#{_anchor(claim, model)})", model, claim.says]
        yield _line([*told, f"{main['label']} {_difference(main)}, {count}", _time(found, claim.method)])
    for claim in missing:
        yield _line(["-", claim.name, claim.model, claim.says, "not measured yet", "-"])
    yield ""
    yield f"{', '.join(f'{mark} {verdict}' for verdict, mark in MARKS.items())}; time as a multiple of the baseline's."


def _anchor(claim: Claim, model: str) -> str:
    return f"{claim.name}-on-{model}"


def _section(claim: Claim, record: Record, found: Mapping[str, Any]) -> Iterator[str]:
    """What was claimed and found, the means of all arms, and the reason where the claim does not hold."""
    s = record.setting
    entry = techniques().get(claim.name) or readers().get(claim.name)
    source = "" if entry is None else f" ([{entry.paper}](https://arxiv.org/abs/{entry.paper.removeprefix('arXiv:')}))"
    yield from ("", f"## {claim.name} on {s['model']}", "")
    yield f"Claim{source}: {claim.says}. Paper: {claim.paper}."
    yield f"\n**{found['verdict'].capitalize()}**, with {found['prompts']} prompts, {s['steps']} steps, {s['device']}."
    if note := claim.notes.get(s["model"]):
        yield note
    yield ""
    yield from (_told("", each) for each in (found["main"], *found["guards"]))
    yield from (_told("part of it: ", each) for each in found["parts"])
    yield "\n<details><summary>Means of all arms</summary>\n"
    labels = [label for label in next(iter(found["means"].values()), {}) if label != "seconds"]
    yield _line(["arm", "steps", *labels])
    yield _line(["---"] * (2 + len(labels)))
    for arm in claim.arms:
        means = found["means"][arm.name]
        yield _line([_arm(arm), _steps(arm, record), *(number(means.get(label)) for label in labels)])
    yield "\n</details>"


def _arm(arm: Arm) -> str:
    return f"{arm.name}: `{' '.join(arm.techniques)}`" if arm.techniques else arm.name


def _steps(arm: Arm, record: Record) -> str:
    return "" if arm.own else str(record.steps.get(arm.name, arm.steps or record.setting["steps"]))


def _told(what: str, found: Mapping[str, Any]) -> str:
    """One line of a list: whether it is so, what was compared, and the difference."""
    margin = found["margin"]
    allowed = "" if not margin else f"; may lose {margin:.3g}" if margin > 0 else f"; has to gain {-margin:.3g}"
    compared = f"`{found['label']}` of *{found['arm']}* against *{found['against']}*"
    return f"- {'✔' if found['right'] else '✘'} {what}{compared}: {_difference(found)}{allowed}"


def _difference(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "no value"
    interval = found["interval"]
    told = "" if interval is None else f" [{interval[0]:+.3g}, {interval[1]:+.3g}]"
    return f"{found['mean']:+.3g}{told} ({'↑' if found['better'] == 'higher' else '↓'} better)"


def _time(found: Mapping[str, Any], method: str) -> str:
    costs = found["cost_beside_baseline"][method]
    ratio = costs["cpu_seconds"] or costs["seconds"]
    return "-" if ratio is None else f"{ratio:.2f}x"


def _measures(claims: Sequence[Claim]) -> Iterator[str]:
    """What the numbers are that are no metric of docs/metrics.md."""
    told = dict(COST_MEANS)
    for claim in claims:
        told |= {name: _first_line(measure) for name, measure in claim.measures.items()} | dict(claim.means)
    used = {each.measure for claim in claims for each in claim.comparisons} | {*COSTS}
    yield from ("", "## What is measured", "", "All others are [metrics](metrics.md).", "")
    yield from (_line(["measure", "what it says"]), _line(["---"] * 2))
    yield from (_line([f"`{name}`", told[name]]) for name in sorted(used & told.keys()))


def _first_line(measure: Any) -> str:
    return inspect.cleandoc(measure.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
