"""The claims bench: pairs and the rule, resuming, equal time, and the page, on made-up numbers and a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kinema.backbones.load import load
from kinema.claims.bench import run as bench
from kinema.claims.bench.claim import Arm, Case, Claim, Comparison, claims, find
from kinema.claims.bench.making import Clock, in_turn, measured, steps_for_equal_time
from kinema.claims.bench.page import page, read_all
from kinema.claims.bench.run import Record, measure, place
from kinema.claims.bench.verdict import difference, ratio, summary, verdict
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.core.registry import readers, techniques
from kinema.metrics.viewing import Viewing

MAIN = Comparison(measure="psnr", to="plain", arm="method", against="fewer")
GUARD = Comparison(measure="prompt_accuracy", arm="method", against="plain", slack=0.1)
CLAIM = Claim(
    name="made_up",
    says="is better",
    paper="2x",
    arms=(Arm(name="plain"), Arm(name="method"), Arm(name="fewer", as_fast_as="method")),
    baseline="plain",
    method="method",
    main=MAIN,
    guards=(GUARD,),
)


def rows(psnr, accuracy, seconds=((4.0, 1.0),)):
    """Pairs (method, fewer) of the main measure, (method, plain) of the guard and of seconds, a row a prompt."""
    found = []
    for i, ((m, f), (a, p)) in enumerate(zip(psnr, accuracy, strict=True)):
        slow, fast = seconds[i % len(seconds)]
        found.append(
            {
                "plain": {"prompt_accuracy": p, "seconds": slow},
                "method": {"psnr to plain": m, "prompt_accuracy": a, "seconds": fast},
                "fewer": {"psnr to plain": f},
            }
        )
    return found


BETTER, WORSE, MIXED = (
    2 * some
    for some in ([(30, 28), (31, 30), (29, 26)], [(28, 30), (27, 30), (29, 30)], [(30, 28), (28, 30), (30, 30)])
)
KEPT, LOST = 2 * [(1.0, 1.0), (0.9, 1.0), (1.0, 1.0)], 2 * [(0.5, 1.0), (0.9, 1.0), (1.0, 1.0)]


@pytest.mark.parametrize("psnr, accuracy, said", [
    (BETTER, KEPT, "holds"),
    (BETTER, LOST, "holds in part"),
    (MIXED, KEPT, "does not hold here"),
    (WORSE, LOST, "does not hold here"),
    (WORSE, KEPT, "does not hold here"),
    (BETTER[:1], KEPT[:1], "too few prompts"),
    (BETTER[:4], KEPT[:4], "too few prompts"),
])  # fmt: skip
def test_the_rule(psnr, accuracy, said):
    assert summary(CLAIM, rows(psnr, accuracy))["verdict"] == said


def test_differences_are_taken_pair_by_pair():
    found = difference(CLAIM, MAIN, rows([(10.0, 9.0), (50.0, 49.0), (30.0, None)], KEPT[:3]))
    assert (found.count, found.of_arm, found.of_other, found.mean) == (2, 30.0, 29.0, 1.0)
    assert found.interval == (1.0, 1.0) and found.clear  # each pair differs by 1, however far the pairs are apart


def test_less_is_better_where_the_measure_says_so():
    cost = Comparison(measure="seconds", arm="method", against="plain", share=-0.5)
    claim = replace(CLAIM, guards=(cost,))
    for seconds, kept in (((4.0, 1.0), True), ((4.0, 2.0), True), ((4.0, 2.1), False), ((4.0, 9.0), False)):
        found = difference(claim, cost, rows(BETTER, KEPT, [seconds]))
        assert found.better == "lower" and found.margin == -2.0 and found.kept is kept
        assert found.mean == pytest.approx(seconds[1] - seconds[0])
    main = difference(replace(CLAIM, main=cost), cost, rows(BETTER, KEPT, [(4.0, 1.5), (4.0, 1.0)]))
    assert main.clear and main.least > 2.0


def test_costs_are_medians_of_ratios_pair_by_pair():
    found = rows(BETTER, KEPT, [(4.0, 1.0), (40.0, 20.0), (8.0, 2.0)])
    assert ratio(found, "seconds", "method", "plain") == 0.25
    assert ratio(found, "memory", "method", "plain") is None
    assert summary(CLAIM, found)["cost_beside_baseline"]["method"] == {
        "seconds": 0.25,
        "cpu_seconds": None,
        "memory": None,
    }


def test_arms_of_equal_time_and_in_turn():
    assert steps_for_equal_time(CLAIM, 30, {"plain": 10.0, "method": 4.0}, CLAIM.arm("fewer")) == 12
    assert steps_for_equal_time(CLAIM, 30, {"plain": 10.0, "method": 0.01}, CLAIM.arm("fewer")) == 1
    assert [arm.name for arm in in_turn(CLAIM.arms, 4)] == ["method", "fewer", "plain"]


def test_the_clock_runs_while_steps_are_taken(monkeypatch):
    now = iter([0.0, 5.0, 8.0, 9.0])
    monkeypatch.setattr("kinema.claims.bench.making.time.perf_counter", lambda: next(now))
    clock = Clock()
    for phase in ("load", "load", "sample", "decode"):
        clock(phase, 1, 2)
    assert clock.costs["seconds"] == 3.0


def test_measures_compare_with_the_arm_that_is_named():
    frames = {
        name: np.full((2, 8, 8, 3), value, np.uint8) for name, value in (("plain", 0), ("method", 1), ("fewer", 2))
    }
    clips = {name: Viewing(f, prompt="a red ball") for name, f in frames.items()}
    claim = replace(
        CLAIM,
        guards=(Comparison(measure="mean", arm="method", against="plain", better="higher"),),
        measures={"mean": lambda clip, case: float(clip.frames.mean())},
    )
    found = measured(claim, Case(text="a red ball"), clips)
    assert found["method"]["psnr to plain"] == pytest.approx(48.13, abs=0.01)
    assert found["fewer"]["psnr to plain"] == pytest.approx(42.11, abs=0.01)
    assert found["plain"] == {"mean": 0.0} and found["fewer"]["mean"] == 2.0


def test_a_claim_is_refused_when_its_names_do_not_fit():
    with pytest.raises(ValueError, match="name each arm once"):
        replace(CLAIM, method="nothing")
    with pytest.raises(ValueError, match="name each arm once"):
        replace(CLAIM, arms=(*CLAIM.arms, Arm(name="plain")))
    with pytest.raises(ValueError, match="snr is no metric of one clip"):
        replace(CLAIM, main=Comparison(measure="snr", arm="method", against="plain", better="higher"))
    with pytest.raises(ValueError, match="nothing says whether more dynamic_degree"):
        replace(CLAIM, guards=(Comparison(measure="dynamic_degree", arm="method", against="plain"),))


def test_every_claim_is_of_a_method_that_is_there():
    known = {**techniques(), **readers()}
    for name, claim in claims().items():
        assert name in known and claim.says and claim.paper and claim.guards, f"{name} has no method or no guard"
        for arm in claim.arms:
            assert all(text.partition(":")[0] in known for text in arm.techniques)
        assert claim.cases(2, None)[1].text
    with pytest.raises(KinemaError, match="did you mean 'linear_leap'"):
        find("linear_lep")


@pytest.fixture
def tiny(tiny_folder):
    return load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")


LEAP = replace(
    CLAIM,
    arms=(CLAIM.arms[0], Arm(name="method", techniques=("linear_leap:at=0.4",)), CLAIM.arms[2]),
    guards=(Comparison(measure="flicker", arm="method", against="plain", share=0.5),),
    steps=5,
    quick_steps=3,
    request=dict(num_frames=5, height=32, width=32),
)  # fmt: skip


def test_techniques_are_told_what_is_in_the_case(tiny):
    case = Case(text="a red ball", options={"linear_leap": {"at": 0.4}, "cfg": {"scale": "of no arm"}})
    found = []
    for arm in (LEAP.arms[1], Arm(name="method", techniques=("linear_leap",)), LEAP.arms[0]):
        clip, _ = bench.make(tiny, LEAP, arm, case, 7, 5)
        found.append(clip.frames)
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any()


def test_it_goes_on_where_it_was_and_begins_anew_when_something_changed(tiny, tmp_path, monkeypatch):
    path, made = tmp_path / "a.json", []
    kept = bench.make
    monkeypatch.setattr(bench, "make", lambda *given: (made.append(given[2].name), kept(*given))[1])
    first = measure(LEAP, tiny, path, prompts=1)
    assert made == ["plain", "plain", "method", "plain", "method", "fewer"]  # once to warm, twice to time, then all
    assert first.rows[0]["seed"] == 7 and first.steps["fewer"] >= 1  # as many as the clock says
    told = []
    second = measure(LEAP, tiny, path, prompts=2, tell=lambda done, count, failed: told.append((done, count)))
    assert made[6:] == ["method", "fewer", "plain"] and told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert second.rows[0] == first.rows[0] and second.steps == first.steps
    assert Record.read(path) == second and json.loads(path.read_text())["summary"]["prompts"] == 2
    values = second.rows[1]["arms"]
    assert values["method"]["psnr to plain"] > 0 and values["method"]["seconds"] > 0
    assert "psnr to plain" not in values["plain"] and set(values["plain"]) >= {"seconds", "cpu_seconds", "flicker"}
    measure(LEAP, tiny, path, prompts=1)
    assert len(made) == 9  # nothing was left to do
    measure(replace(LEAP, steps=4), tiny, path, prompts=1)
    assert len(made) > 9


def test_all_arms_make_the_same_prompt_from_the_same_seed(tiny, tmp_path):
    claim = replace(LEAP, arms=(Arm(name="plain"), Arm(name="method"), Arm(name="fewer")))
    for row in measure(claim, tiny, tmp_path / "a.json", prompts=2).rows:
        assert row["arms"]["method"]["psnr to plain"] == row["arms"]["fewer"]["psnr to plain"] == 100


def test_results_of_something_else_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"something": 1}')
    with pytest.raises(KinemaError, match="holds no results"):
        Record.read(path)
    assert Record.read(tmp_path / "b.json") is None


def record(quick=False):
    setting = {"claim": "made_up", "model": "mini", "quick": quick, "steps": 30, "seed": 7, "device": "cpu"}
    made = [{"prompt": "p", "seed": 7, "arms": arms} for arms in rows(BETTER, KEPT)]
    return Record(setting, {"fewer": 12}, made)


def test_the_page_tells_what_was_measured_and_what_was_not():
    other = replace(CLAIM, name="other")
    text = page(
        {"made_up": replace(CLAIM, notes={"mini": "Because of this."}), "other": other}, [record(), record(True)]
    )
    (row,) = [line for line in text.splitlines() if "[made_up](#made_up-on-mini)" in line]
    assert row.startswith("| ✔ |") and "+2 [" in row and "6 prompts" in row and "0.25x" in row
    assert "| - | other |" in text and "not measured yet" in text
    assert "Of 1 methods that were measured, 1 hold on the model" in text
    changed = replace(CLAIM, arms=(*CLAIM.arms, Arm(name="new")))
    assert "not measured yet" in page({"made_up": changed}, [record()])
    assert "## made_up on mini" in text and "| fewer | 12 |" in text and "Because of this." in text


def test_the_command_measures_and_writes(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kinema.claims.bench.claim.claims", lambda: {"made_up": LEAP})
    folder = str(tiny_folder("kinema_mini"))
    assert run(["claims", "made_up", "--model", folder, "--prompts", "2", "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["claims"][0]["prompts"] == 2 and told["claims"][0]["method"] == "made_up"
    path = place(tmp_path / "claims", LEAP, folder, quick=True)
    assert path.is_file() and Record.read(path).setting["steps"] == 3
    assert run(["claims", "made_up", "--prompts", "0", "--write", "page.md"]) == 0
    assert "not measured yet" in (tmp_path / "page.md").read_text()  # quick results stand in no table
    told = ["claims", "made_up", "--prompts", "0"]
    capsys.readouterr()
    assert run(told) == 2 and "--prompts 0 measures nothing; add --write FILE for" in capsys.readouterr().err
    assert run([*told, "--write", "w.md", "--out", "none"]) == 2
    assert "none holds no results to write; measure some first" in capsys.readouterr().err
    assert not (tmp_path / "w.md").exists() and not (tmp_path / "none").exists()
    assert run(["claims", "other"]) == 2 and "nothing is claimed of 'other'" in capsys.readouterr().err


def test_the_page_in_the_docs_is_made_from_the_files_beside_it():
    from pathlib import Path

    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "claims.md").read_text(encoding="utf-8") == page(claims(), read_all(docs / "claims"))


def test_verdicts_need_a_main_difference():
    empty = [{"plain": {}, "method": {}, "fewer": {}}] * 3
    main = difference(CLAIM, MAIN, empty)
    assert (main.count, main.mean, main.interval) == (0, None, None)
    assert verdict(main, []) == "too few prompts"
