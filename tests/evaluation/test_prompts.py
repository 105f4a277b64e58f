"""What was asked for: prompt files, VBench's among them, and VBench's totals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from folders import frames

from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.prompts import Asked, read_prompts
from kinema.evaluation.results import Evaluation
from kinema.evaluation.vbench import line, summarise
from kinema.metrics import metric as registry
from kinema.metrics.vbench.total import DIMENSIONS, OFFICIAL, totals
from kinema.video import Video

LONG = "a ball " * 30_000
RED = {"color": {"color": "red"}}


def test_prompts_by_name_or_by_order(tmp_path):
    file = tmp_path / "prompts.jsonl"

    def read(text: str) -> dict[str, Asked]:
        file.write_text(text, encoding="utf-8")
        return read_prompts(file, ["a", "b/c"])

    assert read('{"prompt": "x"}\n\n{"prompt": "y"}\n') == {"a": Asked("x"), "b/c": Asked("y")}
    assert read('\ufeff{"name": "a", "prompt": "x"}') == {"a": Asked("x")}
    assert read('{"video": "b/c.mp4", "prompt": "y"}') == {"b/c": Asked("y")}
    for text, says in {
        '{"prompt": "x"}': "has 1 prompts without names for 2 clips",
        '{"prompt": "x"}\n{"name": "a", "prompt": "y"}': "some have none",
        '{"name": "a", "prompt": "x"}\n{"name": "a.gif", "prompt": "y"}': "names 'a.gif' twice",
        '{"name": "d", "prompt": "x"}': "names none of the clips; it has 'd', and they are like 'a'",
        '{"name": 3, "prompt": "x"}': "line 1 of .* has a name that is no text",
        '{"prompt": "a \\ud800"}': "line 1 of .* has a prompt with half a character",
        "[" * 100_000: "line 1 of .* is no JSON object",
        "[]": "holds no prompt",
        "[1]": "entry 1 of .* is no JSON object",
        "3": "line 1 of .* is no JSON object",
        '{"name": "a", "prompt": "x", "auxiliary_info": {"color": "red"}}': 'has an "auxiliary_info" that is not',
        '{"name": "a", "prompt": "x", "dimension": "color"}': 'has a "dimension" that is no list',
        '{"prompt_en": "x"}': "has the prompt of none of the clips; call them like 'x-0', not 'a'",
    }.items():
        with pytest.raises(KinemaError, match=says):
            read(text)


def test_damaged_words_beside_a_clip_do_not_end_the_evaluation(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, beside in (
        ("deep", "[" * 100_000),
        ("long", json.dumps({"caption": LONG})),
        ("half", '{"caption": "a \\ud800 ball"}'),
    ):
        Video(frames(0)).save(clips / f"{name}.gif")
        (clips / f"{name}.json").write_text(beside)
    done = evaluate(clips, metrics="flicker", out=tmp_path / "out")
    assert done.prompts == [None, "a ? ball", LONG] == Evaluation.read(tmp_path / "out").prompts


def test_the_prompt_file_of_vbench(tmp_path):
    file = tmp_path / "VBench_full_info.json"
    rows = [
        {"prompt_en": "a red car", "dimension": ["color"], "auxiliary_info": RED},
        {"prompt_en": "alley", "dimension": ["scene"], "auxiliary_info": {"scene": {"scene": {"scene": "alley"}}}},
        {"prompt_en": "a red car", "dimension": ["imaging_quality"]},
    ]
    car = Asked("a red car", RED, ("color", "imaging_quality"))
    alley = Asked("alley", {"scene": {"scene": {"scene": "alley"}}}, ("scene",))
    for text in (json.dumps(rows), "\n".join(map(json.dumps, rows))):
        file.write_text(text)
        found = read_prompts(file, ["a red car-0", "s/a red car-11", "alley", "alley-", "a red car-0-1"])
        assert found == {"a red car-0": car, "s/a red car-11": car, "alley": alley}


def test_what_the_file_says_reaches_the_metrics_and_is_measured_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_METRICS", registry.metrics())
    common = dict(unit="share", low=0, high=1, better="higher", source="this test", sees="noise", ignores="none")
    registry.metric("told", **common)(lambda clip: float((clip.auxiliary or {}).get("color") == {"color": "red"}))
    folder, file, told = tmp_path / "clips", tmp_path / "prompts.jsonl", []
    folder.mkdir()
    for name in ("a car-0", "a car-1", "sky-0"):
        Video(frames(1)).save(folder / f"{name}.gif")

    def measure(*rows: dict) -> Evaluation:
        file.write_text("\n".join(json.dumps(row) for row in rows))
        told.clear()
        asked = "told,vbench_temporal_flickering"
        return evaluate(folder, prompts=file, metrics=asked, out=tmp_path / "out", tell=lambda *now: told.append(now))

    car = {"prompt_en": "a car", "auxiliary_info": RED, "dimension": ["color"]}
    sky = {"prompt_en": "sky", "dimension": ["temporal_flickering"]}
    done = measure(car, sky)
    assert done.values["told"].tolist() == [1, 1, 0] and done.prompts == ["a car", "a car", "sky"]
    assert np.isnan(done.values["vbench_temporal_flickering"]).tolist() == [True, True, False]
    assert done.results["metrics"]["vbench_temporal_flickering"]["without"] == {"dimension": 2}
    assert measure(car | {"auxiliary_info": {"color": {"color": "blue"}}}, sky).values["told"].tolist() == [0, 0, 0]
    assert told[0][0] == 1
    measure(car | {"auxiliary_info": {"color": {"color": "blue"}}}, sky | {"dimension": []})
    assert told[0][0] == 2


def test_totals_of_vbench(tmp_path, capsys, monkeypatch):
    label = {name: f"{name}:{OFFICIAL[name]}" if OFFICIAL.get(name) else name for name in DIMENSIONS}
    metrics = {label[name]: {"mean": 0.5 + i / 100} for i, name in enumerate(DIMENSIONS)}
    known = totals({name: metrics[label[name]]["mean"] for name in DIMENSIONS})
    found = summarise({**metrics, "flicker": {"mean": 3.0}, "vbench_subject_consistency:efficientnet": {"mean": 0.0}})
    assert (found["quality"], found["semantic"], found["total"]) == (known.quality, known.semantic, known.total)
    assert not found["official"] and not found["missing"]  # here no network is VBench's own for these:
    assert found["stand_ins"] == [name for name in DIMENSIONS if name not in OFFICIAL]
    assert line(found).endswith("; not comparable with the leaderboard: " + ", ".join(found["stand_ins"]))
    only = summarise({label[name]: metrics[label[name]] for name in DIMENSIONS[:7]})
    assert only["official"] and only["quality"] == known.quality and only["missing"] == [*DIMENSIONS[7:]]
    assert "not comparable" not in line(only) and line(only).endswith("; total needs semantic")
    assert f"semantic needs {', '.join(DIMENSIONS[7:])};" in line(only)
    stand_in = summarise({"vbench_subject_consistency:efficientnet": {"mean": 0.5}})
    assert stand_in["total"] is None and stand_in["stand_ins"] == ["vbench_subject_consistency:efficientnet"]
    assert summarise({"flicker": {"mean": 3.0}}) is None

    monkeypatch.setattr("kinema.cli.eval.count_of", lambda workers: 0)
    (tmp_path / "clips").mkdir()
    Video(frames(1)).save(tmp_path / "clips" / "a.gif")
    out = tmp_path / "out"
    assert run(["eval", str(tmp_path / "clips"), "--metrics", "vbench_temporal_flickering", "--out", str(out)]) == 0
    kept = json.loads((out / "results.json").read_text())["vbench"]
    assert kept["official"] and kept["total"] is None and "quality needs vbench_subject_consistency, " in line(kept)
    assert line(kept) in capsys.readouterr().out and line(kept) in (out / "report.html").read_text()
