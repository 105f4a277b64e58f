"""An evaluation interrupted, resumed and spread over processes and machines: always the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import ASKED, contents, frames, stopping

from kinema.core.errors import KinemaError
from kinema.evaluation.evaluate import evaluate, make_plan
from kinema.evaluation.journal import Journal, locked
from kinema.evaluation.runners import DIED, Here, OnRay, Processes
from kinema.evaluation.work import Outcome
from kinema.video import Video

pytestmark = pytest.mark.usefixtures("spread")


@pytest.mark.parametrize("done", [0, 1, 7, 10])
def test_interrupted_and_resumed_gives_the_same_files(clips, reference, whole, tmp_path, monkeypatch, done):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("kinema.evaluation.runners.Here", stopping(done))
        with pytest.raises(KeyboardInterrupt):
            evaluate(clips, reference=reference, out=out, **ASKED)
    assert not (out / "results.json").exists()
    for file in (out / "features").iterdir():  # what a kill leaves
        file.write_bytes(file.read_bytes() + b"half a feature")
    with open(out / "clips.jsonl", "ab") as lines:
        lines.write(b'{"kind": "clip", "name": "sho')
    told = []
    evaluate(clips, reference=reference, out=out, **ASKED, tell=lambda *now: told.append(now))
    assert told[0][:2] == (done, 12) and len(told) == 13 - done and told[-1] == (12, 12, 4)
    assert contents(out) == contents(whole.out)


def test_only_what_changed_is_measured_again(tmp_path):
    folder, out = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    for i in range(3):
        Video(frames(i)).save(folder / f"{i}.gif")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in "abc"))
    first = evaluate(folder, prompts=prompts, metrics="flicker", out=out)
    Video(frames(1) // 2).save(folder / "1.gif")
    Video(frames(7)).save(folder / "3.gif")
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in "abzd"))
    told = []
    again = evaluate(folder, prompts=prompts, metrics="flicker", out=out, tell=lambda *now: told.append(now))
    assert [now[0] for now in told] == [1, 2, 3, 4]  # the first is as it was
    assert again.values["flicker"][0] == first.values["flicker"][0] and again.prompts == [*"abzd"]
    assert again.values["flicker"][1] < 0.7 * first.values["flicker"][1]
    assert contents(out) == contents(evaluate(folder, prompts=prompts, metrics="flicker", out=tmp_path / "new").out)
    (folder / "2.gif").unlink()
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in "abd"))
    assert evaluate(folder, prompts=prompts, metrics="flicker", out=out).names == ["0", "1", "3"]


def test_other_settings_are_refused_until_restart(clips, reference, tmp_path):
    out = tmp_path / "out"
    evaluate(clips, metrics="flicker", out=out)
    with pytest.raises(KinemaError, match=r"other settings \(metrics: psnr is new\); name another --out"):
        evaluate(clips, reference=reference, metrics="flicker,psnr", out=out)
    assert evaluate(clips, reference=reference, metrics="psnr", out=out, restart=True).values.keys() == {"psnr"}
    (out / "plan.json").write_text("[]")
    with pytest.raises(KinemaError, match="plan.json cannot be read; begin anew with --restart"):
        evaluate(clips, reference=reference, metrics="psnr", out=out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(KinemaError, match="holds other things .thesis.txt"):
        evaluate(clips, metrics="flicker", out=tmp_path / "mine", restart=True)


def test_two_at_once_are_refused_and_a_dead_lock_is_not(clips, tmp_path):
    (tmp_path / "lock").write_text("1\n")  # of a process that has ended without a word
    with locked(tmp_path), pytest.raises(KinemaError, match=f"another evaluation .process {os.getpid()}. is at work"):
        evaluate(clips, metrics="flicker", out=tmp_path)
    assert evaluate(clips, metrics="flicker", out=tmp_path)["flicker"] > 0


class Poison(str):
    """A name that ends the process which receives it."""

    def __reduce__(self):
        return os._exit, (9,)


def tasks_of(clips, reference):
    """The tasks of the small folder, and one in the middle whose process dies."""
    plan = make_plan(clips, reference, None, ASKED["metrics"], ASKED["max_gigabytes"])
    tasks = [task for task, _ in plan.tasks()]
    return tasks[:3], replace(tasks[3], name=Poison("poison")), tasks[3:]


def told(outcomes) -> dict[tuple[str, str], str]:
    """Outcomes in words, every bit of them."""
    return {
        (done.kind, done.name): repr((done.failed, done.prompt, done.values, done.lacks, done.errors, done.strip,
                                      {what: rows.tobytes() for what, rows in done.features.items()}))
        for done in outcomes
    }  # fmt: skip


def test_processes_give_the_same_bits_and_survive_a_dying_one(clips, reference):
    before, poison, after = tasks_of(clips, reference)
    place = Processes(2)
    try:
        found = told(place.run([*before, poison, *after], in_flight=3))
    finally:
        place.close()
    assert DIED in found.pop(("clip", "poison"))
    assert found == told(Here().run([*before, *after], 1))


def test_ray_gives_the_same_bits_and_survives_a_dying_one(clips, reference, capfd, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers starve beside other tests
    before, poison, after = tasks_of(clips, reference)
    place = OnRay()
    try:
        found = told(place.run([*before, *after], in_flight=4))
        assert capfd.readouterr() == ("", "")
        (died,) = place.run([poison], in_flight=1)
    finally:
        place.close()
    assert found == told(Here().run([*before, *after], 1))
    assert died.failed == DIED


def descendants(process: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    found = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return found + [other for child in found for other in descendants(child)]


def test_killed_and_started_again(tmp_path):
    """A real kill -9: workers end by themselves, and the next evaluation goes on."""
    folder, out = tmp_path / "clips", tmp_path / "out"
    (folder / "z").mkdir(parents=True)
    for i in range(4):
        Video(frames(i)).save(folder / f"{i}.gif")
    Video(frames(9, 1, 16)).save(folder / "z")
    for i in range(4_000):  # a clip that takes long enough to be killed in
        os.link(folder / "z" / "frame_0000.png", folder / "z" / f"{i}.png")
    words = ["eval", str(folder), "--metrics", "flicker", "--out", str(out), "--workers", "1"]
    command = subprocess.Popen([sys.executable, "-m", "kinema", *words], stderr=subprocess.DEVNULL)
    try:
        lines = out / "clips.jsonl"
        while not lines.exists() or lines.read_bytes().count(b"\n") < 4:
            assert command.poll() is None
            time.sleep(0.02)
        children = descendants(command.pid)
    finally:
        command.send_signal(signal.SIGKILL)
        command.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(children) >= 2 and not any(Path(f"/proc/{child}").exists() for child in children)
    (folder / "z").rename(tmp_path / "z")
    steps = []
    evaluate(folder, metrics="flicker", out=out, tell=lambda *now: steps.append(now))
    assert steps == [(4, 4, 0)]
    assert contents(out) == contents(evaluate(folder, metrics="flicker", out=tmp_path / "unbroken").out)


def test_journal_reads_rows_back(tmp_path):
    rows = {name: np.random.default_rng(i).random((i + 1, 3), np.float32) for i, name in enumerate("ab")}
    journal = Journal(tmp_path)
    for name, features in rows.items():
        journal.add(Outcome(kind="clip", name=name, features={"x/frames": features}), [1])
    journal.close()
    found = Journal(tmp_path).features("x/frames", "clip", ["b", "a"])
    assert len(found) == 2 and [each.shape for each in found] == [(2, 3), (1, 3)]
    np.testing.assert_array_equal(found[-1], rows["a"])
    np.testing.assert_array_equal(found[:1][0], rows["b"])


def test_journal_keeps_numbers_of_clips_in_any_order(tmp_path):
    journal = Journal(tmp_path)
    for name, values in {"a": {"x": 1.5, "y": None}, "b": {"x": 2.5, "y": 3.5}, "c": {"y": -1.0}}.items():
        journal.add(Outcome(kind="clip", name=name, values=values, lacks={"z": "prompt"}), [1])
    journal.add(Outcome(kind="clip", name="d", failed="broken"), [1])
    journal.close()
    for found in (journal, Journal(tmp_path)):
        np.testing.assert_array_equal(found.column("x", ["b", "c", "a", "d"]), [2.5, np.nan, 1.5, np.nan])
        np.testing.assert_array_equal(found.column("y", ["c", "a", "b"]), [-1.0, np.nan, 3.5])
        records = [found.records["clip", name] for name in "ab"]
        assert records[0].labels is records[1].labels and records[0].lacks is records[1].lacks == {"z": "prompt"}
