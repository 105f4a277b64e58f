"""Measures claims: case by case, the arms of a case one after the other, so that load and heat meet all of them alike.

What is measured goes into a file for each method and model after every case, and is not measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.claims.bench.claim import Case, Claim
from kinema.claims.bench.making import in_turn, make, measured, steps_for_equal_time
from kinema.claims.bench.verdict import Row, summary
from kinema.claims.cards import WEIGHTS
from kinema.core import adapter
from kinema.core.errors import KinemaError
from kinema.core.registry import find
from kinema.files import reason, sha256, write_text
from kinema.recipe import hash_weights
from kinema.request import Part

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.metrics.viewing import Viewing

FORMAT = 1
Tell = Callable[[int, int, int], None]  # clips done, clips in all, failed


@dataclass
class Record:
    """What is known of a claim on a model: its setting, and a row for each case that is done."""

    setting: dict[str, Any]
    steps: dict[str, int] = field(default_factory=dict)  # of arms that are as fast as another, once measured
    rows: list[dict[str, Any]] = field(default_factory=list)  # {"prompt", "seed", "arms": {arm: {measure: value}}}

    @property
    def pairs(self) -> list[Row]:
        return [row["arms"] for row in self.rows]

    def fits(self, claim: Claim) -> bool:
        """Whether it was measured with the arms that the claim has."""
        names = {arm.name for arm in claim.arms}
        return all(names <= row.keys() for row in self.pairs)

    def write(self, path: Path, claim: Claim) -> None:
        told = {"format": FORMAT, "setting": self.setting, "steps_for_equal_time": self.steps}
        told |= {"summary": summary(claim, self.pairs), "rows": self.rows}
        write_text(path, json.dumps(told, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """None where there is no file. Raises: KinemaError for one that is something else."""
        if not path.is_file():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError
            return cls(told["setting"], told["steps_for_equal_time"], told["rows"])
        except OSError as error:
            raise KinemaError(f"cannot read {path}: {reason(error)}") from error
        except (ValueError, KeyError, TypeError):
            raise KinemaError(f"{path} holds no results of kinema claims; name another folder with --out") from None


def place(folder: Path, claim: Claim, model: str, quick: bool) -> Path:
    """Where results of a claim on a model are kept."""
    return folder / f"{claim.name}-{Path(model).name}{'-quick' if quick else ''}.json"


def setting(claim: Claim, backbone: Backbone, seed: int, steps: int, quick: bool) -> dict[str, Any]:
    """Everything that results depend on; when it changes, all is measured anew."""
    weights = hash_weights(backbone.folder.path)
    arms = {
        arm.name: {
            "techniques": list(arm.techniques),
            "steps": arm.steps,
            "as_fast_as": arm.as_fast_as,
            "request": dict(arm.request),
        }
        for arm in claim.arms
    }
    told = {
        "claim": claim.name,
        "model": Path(backbone.name).name,
        "weights": hashlib.sha256(json.dumps(weights, sort_keys=True).encode()).hexdigest(),
        "device": backbone.device.type,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "seed": seed,
        "steps": steps,
        "quick": quick,
        "request": dict(claim.request),
        "arms": arms,
        "measures": sorted({comparison.label for comparison in claim.comparisons}),
    }
    parts = [Part.parse(text) for arm in claim.arms for text in arm.techniques]
    folders = {part.name: backbone.folder.path / adapter.FOLDER / part.name for part in parts}
    files = (adapter.CONFIG, adapter.WEIGHTS)  # and not the card, which tells the results
    trained = {name: [sha256(folder / file) for file in files] for name, folder in folders.items() if folder.is_dir()}
    if trained:
        told["adapters"] = trained
    told["defaults"] = {part.name: _defaults(part.name) for part in parts}
    told["readers"] = {path.parent.name: sha256(path) for path in sorted(WEIGHTS.glob("*/model.safetensors"))}
    found: dict[str, Any] = json.loads(json.dumps(told, default=str))
    return found


def _defaults(technique: str) -> dict[str, str]:
    """What the fields of a technique are where an arm does not say."""
    return {f.name: repr(f.default) for f in fields(find(technique).cls) if f.default is not MISSING}


def measure(
    claim: Claim,
    backbone: Backbone,
    path: Path,
    *,
    prompts: int,
    seed: int = 7,
    quick: bool = False,
    restart: bool = False,
    tell: Tell | None = None,
) -> Record:
    """Results of at least `prompts` cases, those that `path` does not hold measured now.

    Raises: KinemaError, one sentence, when an arm cannot be made on this model.
    """
    steps = claim.quick_steps if quick else claim.steps
    wanted = setting(claim, backbone, seed, steps, quick)
    record = None if restart else Record.read(path)
    if record is None or record.setting != wanted:
        record = Record(wanted)
    done, count = len(record.rows), len(claim.arms)
    tell = tell or (lambda done, count, failed: None)
    tell(done * count, prompts * count, 0)
    for number, case in enumerate(claim.cases(prompts, backbone)):
        if number < done:
            continue
        _row(claim, backbone, record, case, number, seed + number, steps, lambda n: tell(n, prompts * count, 0))
        record.write(path, claim)
    return record


def _row(
    claim: Claim,
    backbone: Backbone,
    record: Record,
    case: Case,
    number: int,
    seed: int,
    steps: int,
    tell: Callable[[int], None],
) -> None:
    """Makes a case with every arm, and enters what was measured into the record."""
    timed = [arm for arm in claim.arms if arm.as_fast_as is not None and arm.name not in record.steps]
    if not number:  # what is only slow the first time should not count against the first arm
        make(backbone, claim, claim.arm(claim.baseline), case, seed, 2)
    if timed:
        seconds = {}
        for name in (claim.baseline, *(arm.as_fast_as for arm in timed)):
            arm = claim.arm(str(name))
            _, costs = make(backbone, claim, arm, case, seed, arm.steps or steps)
            # Other programs on the machine change wall time; on a GPU the processor only waits.
            found = costs["cpu_seconds" if backbone.device.type == "cpu" else "seconds"]
            seconds[arm.name] = float(found or 0) or 1e-9
        record.steps |= {arm.name: steps_for_equal_time(claim, steps, seconds, arm) for arm in timed}
    clips: dict[str, Viewing] = {}
    rows: dict[str, dict[str, float | None]] = {}
    for made, arm in enumerate(in_turn(claim.arms, number)):
        taken = record.steps.get(arm.name, arm.steps or steps)
        clip, rows[arm.name] = make(backbone, claim, arm, case, seed, taken)
        if clip is not None:
            clips[arm.name] = clip
        tell(number * len(claim.arms) + made + 1)
    for name, values in measured(claim, case, clips).items():
        rows[name] |= values
    arms = {arm.name: {label: _rounded(value) for label, value in rows[arm.name].items()} for arm in claim.arms}
    record.rows.append({"prompt": case.text, "seed": seed, "arms": arms})


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
