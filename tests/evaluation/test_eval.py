"""`kinema eval`: what is measured, refused and reported; interrupted, resumed and spread, always the same numbers."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import BAD, NAMES, PROMPT, frames, save_clips, save_reference

from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.evaluation.clips import find_clips
from kinema.evaluation.evaluate import evaluate, make_plan
from kinema.evaluation.journal import Journal, locked
from kinema.evaluation.prompts import Asked, read_prompts
from kinema.evaluation.results import Evaluation
from kinema.evaluation.runners import DIED, Here, OnRay, Processes
from kinema.metrics import metric as registry
from kinema.metrics.extractors import extractor
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.metric import find, set_metric
from kinema.video import Video

FILES = ("results.json", "clips.csv", "report.html")
ASKED = dict(metrics="flicker,psnr,spread:world", max_gigabytes=3e-5)  # too little for 64x64 pixels


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("eval") / "clips")


@pytest.fixture(scope="module")
def reference(clips):
    return save_reference(clips.parent / "reference")


@pytest.fixture(autouse=True)
def spread(monkeypatch):
    """A metric of sets for these tests: how far the means of two sets are from each other."""
    monkeypatch.setattr(registry, "_METRICS", registry.metrics())

    @set_metric("spread", unit="", low=0, high=np.inf, better="lower", source="this test", sees="noise",
                ignores="none", extractor="world", features="clip")  # fmt: skip
    def spread(made, reference) -> float:
        """Distance of the means."""
        return float(np.linalg.norm(np.mean([*made], axis=0, dtype=float) - np.mean([*reference], axis=0, dtype=float)))

    return spread


def stopping(count: int) -> type:
    """Instead of `Here`: Ctrl-C after some clips."""

    class Stopping(Here):
        def run(self, tasks, in_flight):
            for index, done in enumerate(super().run(tasks, in_flight)):
                if index == count:
                    raise KeyboardInterrupt
                yield done

    return Stopping


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(clips, reference, tmp_path_factory):
    """The files of an evaluation that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        spread.__wrapped__(patch)
        out = tmp_path_factory.mktemp("whole") / "out"
        return evaluate(clips, reference=reference, out=out, **ASKED)


def test_clips_are_found_by_name(clips, tmp_path):
    assert [source.name for source in find_clips(clips)] == sorted([*NAMES, *BAD])
    for name in ("a.mp4", "a.gif", ".b.mp4", "c.MOV", "done/plan.json", "done/clips.jsonl", "done/strips/x.jpg",
                 "d/sheet.png", "d/e/clip.mp4", "pictures/0.png", ".hidden/f.mp4"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [source.name for source in find_clips(tmp_path)] == ["a.gif", "a.mp4", "c", "d/e/clip", "pictures"]
    assert [source.name for source in find_clips(tmp_path / "pictures")] == ["pictures"]


def test_numbers_are_those_of_the_metrics(clips, reference, whole, spread):
    results = whole.results
    videos = {name: Video.load(source.path) for name, source in
              ((s.name, s) for s in find_clips(clips)) if name in NAMES}  # fmt: skip
    assert whole.names == NAMES and results["clips"] == len(NAMES) + len(BAD) and results["measured"] == len(NAMES)
    expected = [find("flicker")(videos[name].frames) for name in NAMES]
    assert whole.values["flicker"].tolist() == pytest.approx(expected, rel=1e-11)
    flicker = results["metrics"]["flicker"]
    assert flicker["mean"] == pytest.approx(np.mean(expected)) and flicker["n"] == len(NAMES)
    assert flicker["standard_error"] == pytest.approx(np.std(expected, ddof=1) / np.sqrt(len(NAMES)))
    assert flicker["interval"][0] < flicker["mean"] < flicker["interval"][1]
    psnr = results["metrics"]["psnr"]
    assert (psnr["n"], psnr["not_applicable"], psnr["without"]) == (1, 3, {"reference": 3})
    assert psnr["mean"] == 100 and psnr["interval"] is None and list(psnr["errors"].values()) == [1]
    assert "use two of one length and size" in next(iter(psnr["errors"]))
    world = load_extractor("world")
    sets = [[world.clip(v.frames, v.fps) for v in each] for each in
            (videos.values(), [Video.load(s.path) for s in find_clips(reference)])]  # fmt: skip
    found = results["sets"]["spread:world"]
    assert (found["n"], found["references"], found["extractor"]) == (5, 3, "world")
    assert found["value"] == pytest.approx(spread(*sets), rel=1e-6) and whole["spread:world"] == found["value"]


def test_broken_files_are_counted_and_named(whole):
    reasons = {row["name"]: row["reason"] for row in whole.results["failed"]}
    assert sorted(reasons) == BAD
    assert reasons["empty"] == "the file is empty" and "cut short" in reasons["cut"]
    assert "broken" in reasons["broken"] and "too long to hold in memory" in reasons["long"]
    assert not any(str(whole.out) in reason or ".mp4" in reason for reason in reasons.values())


def test_files_say_what_the_results_say(whole):
    assert json.loads((whole.out / "results.json").read_text()) == whole.results
    rows = list(csv.DictReader((whole.out / "clips.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["name"] for row in rows] == NAMES and [row["frames"] for row in rows] == ["4"] * 5
    assert [float(row["flicker"]) for row in rows] == whole.values["flicker"].tolist()
    assert [bool(row["psnr"]) for row in rows] == [name == "clip" for name in NAMES]
    prompts = {row["name"]: row["prompt"] for row in rows}
    assert prompts["clip"] == PROMPT and prompts["<b>x&y"] == "a blue cone <i>spins</i>" and not prompts["dark"]
    again = Evaluation.read(whole.out)
    assert again.results == whole.results and again.names == whole.names
    np.testing.assert_array_equal(again.values["psnr"], whole.values["psnr"])


def test_the_page_stands_alone_and_escapes_names(whole):
    page = (whole.out / "report.html").read_text()
    assert "<b>x" not in page and "&lt;b&gt;x&amp;y" in page and "<i>" not in page
    assert not re.findall(r"https?:|<script|<link|@import|url\(", page)
    assert all(word in page for word in ("flicker", "psnr", "spread:world", "broken", "too long to hold in memory"))
    assert page.count("data:image/jpeg;base64,/9j/") == 6  # five clips by flicker, one by psnr
    assert "<rect" in page


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


@pytest.mark.parametrize(
    "words, says",
    [
        (["none"], "there is no folder none"),
        (["clips/dark.mp4"], "is a file; name the folder it is in"),
        (["nothing"], "nothing holds no clip"),
        (["clips", "--reference", "none"], "there is no folder none"),
        (["clips", "--metrics", "fliker"], "there is no metric 'fliker'; did you mean 'flicker'?"),
        (["clips", "--metrics", "flicker,"], "there is no metric ''"),
        (["clips", "--metrics", "flicker:world"], "flicker uses no extractor; leave ':world' out"),
        (["clips", "--metrics", "spread:wrld"], "there is no extractor 'wrld'; did you mean 'world'?"),
        (["clips", "--metrics", "spread:"], "names no extractor after the colon"),
        (["clips", "--metrics", "psnr"], "psnr needs a reference; give a folder of clips with --reference"),
        (["clips", "--metrics", "spread"], "spread needs a reference"),
        (["clips", "--metrics", "spread", "--reference", "one"], "needs at least 2 reference clips, and there are 1"),
        (["one", "--metrics", "asked"], "asked needs prompts; give them with --prompts"),
        (["one", "--metrics", "heard"], "heard needs sound, and no clip has any"),
        (["clips", "--metrics", "far"], "extractor 'hub' has no weights here"),
        (["clips", "--metrics", "spread:hub", "--reference", "clips"], "extractor 'hub' has no weights here"),
        (["clips", "--metrics", "torn"], "torn breaks down on a plain clip (ZeroDivisionError"),
        (["clips", "--metrics", "flicker", "--prompts", "none.jsonl"], "cannot read none.jsonl"),
        (["clips", "--metrics", "flicker", "--prompts", "bad.jsonl"], 'line 2 of bad.jsonl is no JSON object with a'),
        (["clips", "--metrics", "flicker", "--workers", "0"], "workers is 0; use 1 to 1024, or ray"),
        (["clips", "--metrics", "flicker", "--workers", "many"], "workers is many"),
        (["clips", "--metrics", "flicker", "--max-gigabytes", "0"], "max_gigabytes is 0; use a number above 0"),
        (["clips", "--metrics", "flicker", "--out", "bad.jsonl"], "it is a file; name a folder"),
        (["clips", "--out="], "--out is empty"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_before_a_clip_is_read(clips, tmp_path, capsys, monkeypatch, words, says):
    def metric(name, **told):
        common = dict(unit="", low=0, high=1, better="higher", source="", sees="noise", ignores="none")
        return registry.metric(name, **common, **told)

    metric("asked", needs=("prompt",))(lambda clip: 1.0)
    metric("heard", needs=("sound",))(lambda clip: 1.0)
    metric("far", extractor="hub")(lambda clip, extractor: 1.0)
    metric("torn")(lambda clip: 1 / 0)
    hub = type("Hub", (registry.Extractor,), {"name": "hub", "usual": "far/away", "__init__": refuse})
    monkeypatch.setitem(extractor._EXTRACTORS, "hub", hub)
    monkeypatch.setattr("kinema.evaluation.work.score", lambda task: pytest.fail("a clip was read"))
    monkeypatch.chdir(tmp_path)
    os.symlink(clips, "clips")
    for folder in ("nothing", "one"):
        Path(folder).mkdir()
    Video(frames(0)).save("one/a.gif")
    Path("bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    before = sorted(os.listdir())
    assert run(["eval", *words]) == 2
    out, err = capsys.readouterr()
    assert says in err and len(err.strip().splitlines()) == 1 and not out
    assert sorted(os.listdir()) == before


def refuse(self, model):
    raise KinemaError(f"extractor 'hub' has no weights here, and {model} cannot be fetched")


def test_presets_follow_the_registry_and_tell_what_is_left_out(clips):
    from kinema.evaluation.measures import Has, choose, preset, presets

    assert {"quick", "world", "all", "vbench", *registry.TOPICS} == set(presets())
    quick = {measure.label for measure in preset("quick")}
    assert {"flicker", "psnr"} <= quick and not any(label.endswith(":world") for label in quick)
    assert {"spread:world"} <= {m.label for m in preset("world")} <= {m.label for m in preset("all")}
    chosen, left_out = choose(["quick"], Has(frozenset(), 5, 0))
    assert {m.label for m in chosen} | set(left_out) == quick and "psnr" in left_out
    assert "needs a reference" in left_out["psnr"] and "flicker" in {m.label for m in chosen}
    with pytest.raises(KinemaError, match="psnr needs a reference"):
        choose(["quick", "psnr"], Has(frozenset(), 5, 0))
    (measure,), _ = choose(["spread:world"], Has(frozenset({"reference"}), 5, 5))
    assert measure.label == "spread:world"
    done = evaluate(clips, metrics="quick")
    assert {"metric": "psnr", "reason": left_out["psnr"]} in done.results["not_measured"]


def test_prompts_by_name_or_by_order(tmp_path):
    file = tmp_path / "prompts.jsonl"

    def read(text: str) -> dict[str, str]:
        file.write_text(text)
        return read_prompts(file, ["a", "b/c"])

    assert read('{"prompt": "x"}\n\n{"prompt": "y"}\n') == {"a": "x", "b/c": "y"}
    assert read('{"video": "b/c.mp4", "prompt": "y"}') == {"b/c": "y"}
    for text, says in {
        '{"prompt": "x"}': "has 1 prompts without names for 2 clips",
        '{"prompt": "x"}\n{"name": "a", "prompt": "y"}': "some have none",
        '{"name": "a", "prompt": "x"}\n{"name": "a.gif", "prompt": "y"}': "names 'a.gif' twice",
        '{"name": "d", "prompt": "x"}': "names none of the clips; it has 'd', and they are like 'a'",
        '{"name": 3, "prompt": "x"}': "line 1 of .* has a name that is no text",
        "[]": "line 1 of .* is no JSON object",
    }.items():
        with pytest.raises(KinemaError, match=says):
            read(text)


def test_nothing_that_can_be_measured_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kinema.cli.eval.count_of", lambda workers: 0)
    (tmp_path / "a.mp4").touch()
    assert run(["eval", str(tmp_path), "--metrics", "flicker", "--out", str(tmp_path / "out"), "--json"]) == 2
    assert "none of the 1 clips can be measured; a: the file is empty" in capsys.readouterr().err


def test_the_command_prints_a_table_or_json_and_says_how_to_go_on(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kinema.cli.eval.count_of", lambda workers: 0)
    words = ["eval", str(clips), "--metrics", "flicker,temporal"]
    with monkeypatch.context() as patch:
        patch.setattr("kinema.evaluation.runners.Here", stopping(4))
        assert run(words) == 130
    assert capsys.readouterr().err == (
        "kinema: interrupted; go on with the same command; what is done is kept in clips-eval\n"
    )
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert "going on: 4 of 9 clips were done before" in err
    assert "flicker" in out and "6 of 9 clips measured" in out and "failed: empty: the file is empty" in out
    assert "clips-eval/report.html" in out
    assert run([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["metrics"]["flicker"]["n"] == 6 and results["out"] == "clips-eval"


def test_journal_reads_rows_back(tmp_path):
    from kinema.evaluation.work import Outcome

    rows = {name: np.random.default_rng(i).random((i + 1, 3), np.float32) for i, name in enumerate("ab")}
    journal = Journal(tmp_path)
    for name, features in rows.items():
        journal.add(Outcome(kind="clip", name=name, features={"x/frames": features}), [1])
    journal.close()
    found = Journal(tmp_path).features("x/frames", "clip", ["b", "a"])
    assert len(found) == 2 and [each.shape for each in found] == [(2, 3), (1, 3)]
    np.testing.assert_array_equal(found[-1], rows["a"])
    np.testing.assert_array_equal(found[:1][0], rows["b"])
