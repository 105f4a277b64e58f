"""From the notes of an evaluation to its results: means with intervals, numbers of sets, and what is missing."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.errors import KinemaError
from kinema.evaluation.journal import Journal, Record
from kinema.evaluation.measures import Measure
from kinema.evaluation.vbench import summarise
from kinema.evaluation.work import Kind
from kinema.files import reason, write_text
from kinema.metrics.metric import SetMetric
from kinema.metrics.statistics import bootstrap, standard_error

FORMAT = 1
DRAWS = 2_000  # of the bootstrap
WITHOUT = {
    "prompt": "a prompt",
    "reference": "a clip of its name in the reference",
    "sound": "sound",
    "dimension": "a prompt that VBench measures it on",
}
ABOUT = ("name", "prompt", "frames", "height", "width", "fps")  # columns of clips.csv before the metrics


@dataclass(frozen=True)
class Evaluation:
    """Results of `kinema.evaluate`.

    `results` is what results.json holds, `values` the number of each clip by metric, in the order of `names`; NaN where
    a metric does not apply. `out` is the folder with all files, if one was asked for.
    """

    results: dict[str, Any]
    names: list[str]
    prompts: list[str | None]
    values: dict[str, np.ndarray] = field(repr=False)
    out: Path | None = None

    def __getitem__(self, metric: str) -> float:
        """The mean of a metric over the clips, or the number of the set. Raises: KeyError when it was not measured."""
        sets, metrics = self.results["sets"], self.results["metrics"]
        return float(sets[metric]["value"] if metric in sets else metrics[metric]["mean"])

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """What an evaluation wrote into its folder. Raises: KinemaError when it is not there or damaged."""
        path = Path(folder)
        try:
            results = json.loads((path / "results.json").read_text(encoding="utf-8"))
            if results["format"] != FORMAT:
                raise KinemaError(f"{path} has results of format {results['format']}; this version reads {FORMAT}")
            rows = _rows(path / "clips.csv")
            if len(rows) != results["measured"] or not {"videos", "reference", "kinema"} <= results["settings"].keys():
                raise ValueError("results.json and clips.csv do not belong together")
            values = {label: np.array([float(row[label] or "nan") for row in rows]) for label in results["metrics"]}
            return cls(results, [row["name"] for row in rows], [row["prompt"] or None for row in rows], values, path)
        except OSError as error:
            raise KinemaError(f"cannot read the results in {path}: {reason(error)}") from error
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise KinemaError(f"the results in {path} are damaged; evaluate again") from error

    def write(self, folder: Path, records: dict[str, Record]) -> None:
        """Writes results.json and clips.csv."""
        write_text(folder / "results.json", json.dumps(self.results, indent=1, allow_nan=False) + "\n")
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow([*ABOUT, *self.values])
        for index, (name, prompt) in enumerate(zip(self.names, self.prompts, strict=True)):
            record = records[name]
            numbers = [value[index] for value in self.values.values()]
            shown = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
            lines.writerow([name, prompt or "", *(record.shape or ()), record.fps, *shown])
        write_text(folder / "clips.csv", text.getvalue())


def _rows(path: Path) -> list[dict[str, str]]:
    before = csv.field_size_limit(2**31 - 1)  # prompts may be longer than the 128 KiB that it allows
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    finally:
        csv.field_size_limit(before)


def conclude(
    journal: Journal,
    measures: Sequence[Measure],
    left_out: dict[str, str],
    clips: Sequence[str],
    references: Sequence[str],
    settings: dict[str, Any],
) -> Evaluation:
    """All numbers, from what is written down about the clips named.

    Raises: KinemaError when no clip could be measured.
    """
    records = {name: journal.records["clip", name] for name in clips}
    good = sorted(name for name in clips if records[name].failed is None)
    if not good:
        raise KinemaError(f"none of the {len(clips)} clips can be measured; {clips[0]}: {records[clips[0]].failed}")
    compared = sorted(n for n in references if journal.records["reference", n].failed is None)
    metrics: dict[str, dict[str, Any]] = {}
    sets: dict[str, dict[str, Any]] = {}
    missing = dict(left_out)
    values: dict[str, np.ndarray] = {}
    for measure in measures:
        label = measure.label
        if isinstance(measure.metric, SetMetric):
            try:
                sets[label] = _of_set(journal, measure, good, compared)
            except KinemaError as error:
                missing[label] = str(error)
            continue
        column = journal.column(label, good)
        summary = _of_clips(measure, column, [records[name] for name in good])
        if summary["n"]:
            metrics[label], values[label] = summary, column
        else:
            missing[label] = _why(summary)
    results = {
        "format": FORMAT,
        "settings": settings,
        "clips": len(clips),
        "measured": len(good),
        "references": len(compared),
        "metrics": metrics,
        "sets": sets,
        **({"vbench": vbench} if (vbench := summarise(metrics)) else {}),
        "not_measured": [{"metric": label, "reason": why} for label, why in sorted(missing.items())],
        "failed": _failed(journal, "clip", clips),
        "failed_references": _failed(journal, "reference", references),
        "values": "clips.csv",
    }
    return Evaluation(results, good, [records[name].prompt for name in good], values)


def _failed(journal: Journal, kind: Kind, names: Sequence[str]) -> list[dict[str, str]]:
    found = ((name, journal.records[kind, name].failed) for name in sorted(names))
    return [{"name": name, "reason": why} for name, why in found if why is not None]


def _about(measure: Measure) -> dict[str, Any]:
    """What is told of a metric beside its numbers; a range without an end is null there."""
    m = measure.metric
    low, high = (end if math.isfinite(end) else None for end in (m.low, m.high))
    return {
        "summary": m.summary, "topic": m.topic, "unit": m.unit, "low": low, "high": high, "better": m.better,
        "extractor": measure.label.partition(":")[2] or None,
    }  # fmt: skip


def _of_clips(measure: Measure, column: np.ndarray, records: Sequence[Record]) -> dict[str, Any]:
    """Mean with its error over the clips the metric applies to, and how many those are."""
    label, kept = measure.label, column[~np.isnan(column)]
    errors = Counter(record.errors[label] for record in records if label in record.errors)
    lacks = Counter(record.lacks[label] for record in records if label in record.lacks)
    interval = bootstrap(kept, DRAWS)
    return {
        **_about(measure),
        "mean": float(kept.mean()) if len(kept) else None,
        "standard_error": standard_error(kept),
        "interval": None if interval is None else list(interval),
        "n": len(kept),
        "not_applicable": len(column) - len(kept) - errors.total(),
        "without": dict(sorted(lacks.items())),
        "errors": dict(sorted(errors.items())),
    }


def _why(summary: dict[str, Any]) -> str:
    """Why a metric has no number at all."""
    if summary["errors"]:
        return str(max(summary["errors"], key=summary["errors"].get))
    if summary["without"] and sum(summary["without"].values()) == summary["not_applicable"]:
        return f"no clip comes with {' or '.join(WITHOUT[need] for need in summary['without'])}"
    return "no clip has anything for it to measure"


def _of_set(journal: Journal, measure: Measure, clips: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """The number of the set. Raises: KinemaError when there is none."""
    metric, what = measure.metric, feature_key(measure)
    assert isinstance(metric, SetMetric)
    compared = "reference" in metric.needs
    made = journal.features(what, "clip", clips)
    value = metric(made, journal.features(what, "reference", references)) if compared else metric(made)
    if not math.isfinite(value):
        raise KinemaError(f"it gave {value}, which is no finite number")
    count = len(references) if compared else None
    return {**_about(measure), "value": value, "n": len(clips), "references": count}


def feature_key(measure: Measure) -> str:
    """How the features are called that a metric of sets reads."""
    assert isinstance(measure.metric, SetMetric)
    return f"{measure.extractor}/{measure.metric.features}"
