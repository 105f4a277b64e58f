"""`kinema.evaluate`: a folder of clips measured, however often it is interrupted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import Source, find_clips, prompt_of, read_header
from kinema.evaluation.journal import Journal, locked, settle
from kinema.evaluation.measures import Has, Measure, choose, needs
from kinema.evaluation.prompts import Asked, read_prompts
from kinema.evaluation.report import write_report
from kinema.evaluation.results import Evaluation, conclude, feature_key
from kinema.evaluation.runners import DIED, prepare, runner
from kinema.evaluation.work import Kind, Task
from kinema.metrics.metric import Metric, SetMetric

Path_ = str | os.PathLike[str]
Tell = Callable[[int, int, int], None]  # clips done, of how many, how many of them failed


@dataclass(frozen=True)
class Plan:
    """What is to be done, before anything is."""

    clips: list[Source]
    references: list[Source]
    prompts: dict[str, Asked]
    measures: list[Measure]
    left_out: dict[str, str]
    settings: dict[str, Any]
    max_bytes: int

    def tasks(self) -> Iterator[tuple[Task, list[Any]]]:
        """The work, with what each clip is now: a clip written down with another mark is measured again."""
        partners = {source.name: source for source in self.references}
        single = tuple((m.label, m.metric.name, m.extractor) for m in self.measures if isinstance(m.metric, Metric))
        sets = [m for m in self.measures if isinstance(m.metric, SetMetric)]
        of_clips = _features(sets)
        of_references = _features([m for m in sets if "reference" in m.metric.needs])
        shared: dict[str, Any] = dict(max_bytes=self.max_bytes)
        for source in self.clips:
            asked, partner = self.prompts.get(source.name), partners.get(source.name)
            mark = [*source.mark, asked and asked.mark, partner and partner.mark]
            yield (
                Task(
                    kind="clip", name=source.name, path=str(source.path), asked=asked,
                    partner=str(partner.path) if partner else None, metrics=single, features=of_clips, **shared,
                ),
                mark,
            )  # fmt: skip
        for source in self.references if of_references else ():
            task = Task(
                kind="reference", name=source.name, path=str(source.path), asked=None, partner=None,
                metrics=(), features=of_references, **shared,
            )  # fmt: skip
            yield task, list(source.mark)


def _features(measures: Sequence[Measure]) -> tuple[tuple[str, str], ...]:
    found = {tuple(feature_key(m).rsplit("/", 1)) for m in measures}
    return tuple(sorted((extractor, what) for extractor, what in found))


def make_plan(
    videos: Path_, reference: Path_ | None, prompts: Path_ | None, metrics: str | Sequence[str], max_gigabytes: float
) -> Plan:
    """Finds the clips and chooses the metrics. Raises: KinemaError for whatever cannot be done as it is asked."""
    if not 0 < max_gigabytes <= 1024:
        raise KinemaError(f"max_gigabytes is {max_gigabytes:g}; use a number above 0, at most 1024")
    asked = [part.strip() for text in ([metrics] if isinstance(metrics, str) else metrics) for part in text.split(",")]
    wanted = needs(asked)
    clips = find_clips(videos)
    references = find_clips(reference) if reference is not None else []
    given = read_prompts(prompts, [clip.name for clip in clips]) if prompts is not None else {}
    there = {"reference"} if references else set()
    there |= {"prompt"} if given else set()
    there |= _in_files(clips, wanted - there - {"reference"})
    measures, left_out = choose(asked, Has(frozenset(there), len(clips), len(references)))
    settings = {
        "kinema": _version(),
        "videos": str(Path(videos).resolve()),
        "reference": None if reference is None else str(Path(reference).resolve()),
        "metrics": [measure.label for measure in measures],
        "max_gigabytes": float(max_gigabytes),
    }
    return Plan(clips, references, given, measures, left_out, settings, int(max_gigabytes * 2**30))


def _version() -> str:
    from kinema import __version__

    return __version__


def _in_files(clips: Sequence[Source], wanted: set[str]) -> set[str]:
    """Which of "prompt" and "sound" any clip brings; only headers are read, until all wanted are found."""
    found: set[str] = set()
    for clip in clips:
        if found >= wanted:
            break
        try:
            header = read_header(clip.path)
        except KinemaError:
            continue
        found |= {"sound"} if header.sound else set()
        found |= {"prompt"} if prompt_of(clip.path, header.metadata) else set()
    return found & wanted


def evaluate(
    videos: Path_,
    *,
    reference: Path_ | None = None,
    prompts: Path_ | None = None,
    metrics: str | Sequence[str] = "quick",
    out: Path_ | None = None,
    workers: int | str = 0,
    max_gigabytes: float = 2.0,
    restart: bool = False,
    tell: Tell | None = None,
) -> Evaluation:
    """Measures all clips of a folder.

    Args:
        videos: folder of mp4, webm, gif, mkv, mov, and of folders of pictures.
        reference: folder of clips to compare with: as a set, and those of the same name one by one.
        prompts: file of JSON lines, {"name": ..., "prompt": ...}, or VBench's prompt file; see `read_prompts`. Without
            it the prompts in the files count.
        metrics: names, "NAME:EXTRACTOR", presets; several as a list or with commas.
        out: folder for results.json, clips.csv, report.html and the notes that it goes on from when it was ended;
            without one nothing is kept.
        workers: 0 for this process, a number of processes, or "ray".
        max_gigabytes: of the frames of one clip; larger clips are reported and left out.
        restart: forget what `out` holds of an earlier evaluation.
        tell: called with clips done, of how many, and how many of them failed.

    Raises:
        KinemaError: one sentence, for what cannot be done, most of it before the first clip is read.
    """
    prepare(workers)
    plan = make_plan(videos, reference, prompts, metrics, max_gigabytes)
    with _folder(out) as folder:
        settle(folder, plan.settings, restart)
        with locked(folder), closing(Journal(folder)) as journal:
            _measure(plan, journal, workers, tell)
            clips, references = ([s.name for s in found] for found in (plan.clips, _used_references(plan)))
            done = conclude(journal, plan.measures, plan.left_out, clips, references, plan.settings)
            if out is None:
                return done
            done.write(folder, {name: journal.records["clip", name] for name in done.names})
            write_report(folder / "report.html", done, journal)
            return replace(done, out=folder)


def _used_references(plan: Plan) -> list[Source]:
    """Those of which features are taken."""
    sets = any(isinstance(m.metric, SetMetric) and "reference" in m.metric.needs for m in plan.measures)
    return plan.references if sets else []


@contextmanager
def _folder(out: Path_ | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _measure(plan: Plan, journal: Journal, workers: int | str, tell: Tell | None) -> None:
    """Does what is not written down yet."""
    todo: list[Task] = []
    marks: dict[tuple[Kind, str], list[Any]] = {}
    for task, mark in plan.tasks():
        record = journal.records.get((task.kind, task.name))
        marks[task.kind, task.name] = mark
        if record is None or record.mark != mark or record.failed == DIED:
            todo.append(task)
    done = len(marks) - len(todo)
    failed = sum(journal.records[key].failed is not None for key in marks if key in journal.records)
    if tell is not None:
        tell(done, len(marks), failed)
    if not todo:
        return
    place, in_flight = runner(workers, len(todo))
    with closing(place):
        for outcome in place.run(todo, in_flight):
            journal.add(outcome, marks[outcome.kind, outcome.name])
            done, failed = done + 1, failed + (outcome.failed is not None)
            if tell is not None:
                tell(done, len(marks), failed)
