"""`kinema eval`: what is measured, refused and reported."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from folders import BAD, NAMES, PROMPT, frames, stopping

from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.evaluation.clips import find_clips
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.report import _ends as ends_of
from kinema.evaluation.results import Evaluation
from kinema.metrics import metric as registry
from kinema.metrics.extractors import extractor
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.metric import find
from kinema.video import Video

pytestmark = pytest.mark.usefixtures("spread")


def test_clips_are_found_by_name(clips, tmp_path):
    assert [source.name for source in find_clips(clips)] == sorted([*NAMES, *BAD])
    for name in ("a.mp4", "a.gif", ".b.mp4", "c.MOV", "done/plan.json", "done/clips.jsonl", "done/strips/x.jpg",
                 "d/sheet.png", "d/e/clip.mp4", "pictures/0.png", ".hidden/f.mp4"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [source.name for source in find_clips(tmp_path)] == ["a.gif", "a.mp4", "c", "d/e/clip", "pictures"]
    assert [source.name for source in find_clips(tmp_path / "pictures")] == ["pictures"]
    for name in (b"\xfe.mp4", b"\xff.mp4"):
        (tmp_path / "d" / os.fsdecode(name)).touch()
    assert [source.name for source in find_clips(tmp_path / "d")] == ["\\xfe", "\\xff", "e/clip"]


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


def test_clips_of_the_best_value_are_not_among_the_worst():
    nan = float("nan")
    values = np.array([1.0, 1.0, 0.0, 1.0, nan, 1.0])
    assert ends_of(values, "higher") == [("Best", [0, 1, 3], 4), ("Worst", [2], 1)]
    assert ends_of(values, "lower") == [("Best", [2], 1), ("Worst", [0, 1, 3], 4)]
    assert ends_of(values[:2], None) == [("All alike", [0, 1], 2)]
    assert ends_of(np.array([3.0, 1.0, 2.0]), None) == [("Lowest", [1, 2], 1), ("Highest", [0], 1)]


@pytest.mark.parametrize(
    "words, says",
    [
        (["none"], "there is no folder none"),
        (["clips/dark.mp4"], "is a file; name the folder it is in"),
        (["nothing"], "nothing holds no clip"),
        (["clips", "--reference", "none"], "there is no folder none"),
        (["clips", "--metrics", "fliker"], "there is no metric 'fliker'; did you mean 'flicker'?"),
        (["clips", "--metrics", "flicker,"], "there is no metric ''; `kinema metrics` lists"),
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
        ([""], "an argument of kinema eval is empty; give it a value"),
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
