"""`kinema compare`: differences, win-rates and verdicts against numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from folders import frames

import kinema
from kinema.cli import run
from kinema.cli.tables import fitting
from kinema.core.errors import KinemaError
from kinema.evaluation.compare import difference
from kinema.metrics.statistics import bootstrap, standard_error, wilson
from kinema.video import Video

NAN = np.nan


def test_difference_by_hand():
    a = np.array([1.0, 2, 3, 4, 5, 6, 7, NAN])
    b = np.array([2.0, 3, 4, 5, 6, 7, 7, 1])
    found = difference(a, b, "higher")
    assert (found["n"], found["a"], found["b"]) == (7, 4.0, 34 / 7)
    assert found["difference"] == pytest.approx(6 / 7) and found["win_rate"] == pytest.approx(6.5 / 7)
    assert found["win_rate_interval"] == list(wilson(6.5, 7)) and found["verdict"] == "b"
    lower = difference(a, b, "lower")
    assert lower["win_rate"] == pytest.approx(0.5 / 7) and lower["verdict"] == "a"
    assert lower["difference"] == found["difference"] and lower["interval"] == found["interval"]
    neither = difference(a, b, None)
    assert neither["win_rate"] is None and neither["verdict"] == "b"
    assert difference(a[:5], b[:5], "higher")["verdict"] is None  # five pairs prove nothing
    assert difference(a, a, "higher") | {"interval": 0} == difference(a, a, "lower") | {"interval": 0}
    assert difference(a, a, "higher")["win_rate"] == 0.5 and difference(a, a, "higher")["verdict"] is None
    assert difference(a[:0], b[:0], "higher")["difference"] is None


def test_bootstrap_agrees_with_the_normal_interval_and_with_scipy():
    from scipy import stats

    values = np.random.default_rng(3).normal(5, 2, 400)
    low, high = bootstrap(values)
    reach = 1.959964 * standard_error(values)
    assert low == pytest.approx(values.mean() - reach, abs=0.06 * reach)
    assert high == pytest.approx(values.mean() + reach, abs=0.06 * reach)
    skewed = np.random.default_rng(4).exponential(size=15)
    peer = stats.bootstrap((skewed,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert bootstrap(skewed) == pytest.approx(tuple(peer), abs=0.03)
    assert bootstrap(skewed) == bootstrap(skewed) and bootstrap(np.array([1.0])) is None
    drawn = (np.random.default_rng(seed).normal(size=40) for seed in range(100))
    covered = sum(low <= 0 <= high for low, high in (bootstrap(values, 400) for values in drawn))
    assert 86 <= covered <= 99


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Noisier clips in b; one clip in a only, one in b only."""
    folder = tmp_path_factory.mktemp("compare")
    for side, strength in (("a", 8), ("b", 4)):
        (folder / side).mkdir()
        for i in range(6):
            made = {"kinema": {"request": {"prompt": f"clip {i}" if i else f"clip of {side}"}}}
            Video(frames(i) // strength, metadata=made).save(folder / side / f"{i}.gif")
        Video(frames(9)).save(folder / side / f"only_{side}.gif")
    return folder


def test_folders_of_clips(sides, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kinema.cli.compare.count_of", lambda workers: 0)
    words = ["compare", str(sides / "a"), str(sides / "b")]
    assert run([*words, "--metrics", "flicker", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (found["pairs"], found["only_in_a"], found["only_in_b"]) == (6, 1, 1)
    flicker = found["metrics"]["flicker"]
    assert flicker["win_rate"] == 0 and flicker["verdict"] == "a" and flicker["difference"] > 0
    assert found["warnings"] == ["1 of 6 pairs were made from different prompts"]
    ready = [str(tmp_path / "out" / side) for side in "ab"]
    assert kinema.compare(*ready).results == found
    assert kinema.compare(sides / "a", ready[1])["flicker"] == flicker  # takes the metrics of the other
    assert run(["compare", *ready]) == 0
    out = capsys.readouterr().out
    assert "A better" in out and "6 pairs, 1 only in A, 1 only in B" in out and "note: 1 of 6 pairs" in out


def test_refusals(sides, tmp_path):
    kinema.evaluate(sides / "a", metrics="flicker", out=tmp_path / "a")
    kinema.evaluate(sides / "b", metrics="colourfulness", out=tmp_path / "b")
    with pytest.raises(KinemaError, match="no metric in common"):
        kinema.compare(tmp_path / "a", tmp_path / "b")
    with pytest.raises(KinemaError, match="metric 'psnr' is not in both evaluations; these are: flicker"):
        kinema.compare(tmp_path / "a", tmp_path / "a", metrics="psnr")
    (tmp_path / "c").mkdir()
    Video(frames(0)).save(tmp_path / "c" / "other.gif")
    with pytest.raises(KinemaError, match="no clip has the same name in both; the first has clips like '0', .*'other'"):
        kinema.compare(sides / "a", tmp_path / "c", metrics="flicker")
    with pytest.raises(KinemaError, match=r"holds other things \(other.gif\); name a new one"):
        kinema.compare(tmp_path / "a", sides / "b", out=tmp_path / "c")
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    for name, text in (
        ("clips.csv", "name,prompt\n"),
        ("results.json", json.dumps({**results, "measured": 0, "settings": {}})),
        ("results.json", "[]"),
        ("results.json", "{}"),
    ):
        (tmp_path / "a" / name).write_text(text)
        with pytest.raises(KinemaError, match="damaged; evaluate again"):
            kinema.compare(tmp_path / "a", tmp_path / "b")


def test_columns_that_do_not_fit_are_left_out():
    titles, widths = ("metric", "mean", "unit"), (6, 4, 10)
    assert fitting(titles, widths, ("unit", "mean"), 24) == [] == fitting(titles, widths, ("unit", "mean"), None)
    assert fitting(titles, widths, ("unit", "mean"), 23) == ["unit"]
    assert fitting(titles, widths, ("unit", "mean"), 11) == ["unit", "mean"]
