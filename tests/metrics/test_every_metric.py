"""What every metric keeps: its range, its determinism, its errors, and that it sees what it says it sees."""

import numpy as np
import pytest
from clips import world_clips

from kinema.claims.metrics import applies, trial_of
from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.corruptions.corruption import corruptions
from kinema.metrics.extractors.extractor import find_extractor, load_extractor
from kinema.metrics.ladder import ladder, rows
from kinema.metrics.metric import Metric, SetMetric, find, metrics
from kinema.metrics.viewing import Viewing

ALL = metrics()
OF_CLIPS = [name for name, each in ALL.items() if isinstance(each, Metric)]
BY_FAULT = sorted(ALL, key=lambda name: (ALL[name].clips, ALL[name].sees))  # they share clips


def extractor_of(metric):
    """Its extractor, or the one that stands in for it; None where it uses none. Skips the test when there is none."""
    if metric.extractor is None:
        return None
    try:
        return load_extractor(metric.offline or metric.extractor)
    except Unreachable:
        pytest.skip(f"{metric.name} needs {metric.extractor}")


def whole(clip: Viewing) -> Viewing:
    """The clip with all that a metric may need; its reference is another piece of itself, so that they differ."""
    other = clip.but(frames=np.roll(clip.frames, 2, axis=2).copy(), reference=None)
    rng = np.random.default_rng(0)
    sound = clip.sound if clip.sound is not None else rng.uniform(-1, 1, 16000).astype(np.float32)
    prompt = clip.prompt or "a red ball rolls to the left on the grass"
    return clip.but(reference=other, sound=sound, sample_rate=16000, prompt=prompt)


@pytest.mark.parametrize("name", ALL)
def test_it_says_what_it_is(name):
    metric = ALL[name]
    assert metric.low < metric.high and metric.better in ("higher", "lower", None)
    assert metric.unit and metric.source and metric.summary.endswith("."), "say unit, source and a whole sentence"
    assert {metric.sees, metric.ignores} <= set(corruptions()) and metric.sees != metric.ignores
    for extractor in {metric.extractor, metric.offline} - {None}:
        assert find_extractor(extractor)
    if isinstance(metric, SetMetric):
        assert metric.features in find_extractor(metric.extractor)[0].gives


@pytest.mark.parametrize("name", OF_CLIPS)
def test_it_stays_in_its_range_and_gives_the_same_number_again(name):
    metric = ALL[name]
    extractor = extractor_of(metric)
    tiny = Viewing(np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8))
    for clip in (*world_clips(1), tiny, tiny.but(frames=tiny.frames[:1]), tiny.but(frames=tiny.frames * 0)):
        clip = whole(clip)
        before = clip.frames.copy()
        try:
            value = metric(clip, extractor=extractor)
        except KinemaError as error:  # too short or too small for it, in one sentence
            assert str(error).strip() and "\n" not in str(error)
            continue
        assert value is None or metric.low <= value <= metric.high, f"{value} is not in its range"
        assert metric(clip.but(), extractor=extractor) == value
        np.testing.assert_array_equal(clip.frames, before)


@pytest.mark.parametrize("name", OF_CLIPS)
def test_bad_input_is_one_sentence(name):
    metric = ALL[name]
    with pytest.raises(KinemaError, match="uint8"):
        metric(np.zeros((3, 16, 16, 3), np.float32))
    for need in metric.needs:
        with pytest.raises(KinemaError, match=f"needs a {need}"):
            metric(whole(world_clips(1)[0]).but(**{need: None}))


@pytest.mark.parametrize("name", BY_FAULT)
@pytest.mark.parametrize("kind", ("world", "real"))
def test_it_sees_what_it_says_and_ignores_what_it_says(name, kind):
    metric = ALL[name]
    if not applies(metric, kind):
        pytest.skip("its extractor knows the world only")
    if kind == "real" and metric.extractor is not None and applies(metric, "world"):
        pytest.skip("it was tried on the clips of the world; on real ones it is in docs/metrics.md")
    if kind == "real" and metric.offline:
        pytest.skip("its network was tried on the clips of the world; on real ones it is in docs/metrics.md")
    grades = (1.0,) if metric.offline or kind == "real" else (0.4, 1.0)  # docs/metrics.md has all five, of more clips
    found = ladder(metric, trial_of(kind, metric.clips), extractor_of(metric), grades)
    if found is None:
        assert kind == "real", f"{name} measures nothing in the clips of the world"
        return
    assert found.steady, f"{name} under {metric.sees}: {found.values}"
    assert found.moved <= 0.02, f"{metric.ignores} moves {name} from {found.values[0]} to {found.ignored}"


def test_a_metric_and_its_options_are_found_by_name():
    with pytest.raises(KinemaError, match="did you mean 'flicker'"):
        find("fliker")
    with pytest.raises(KinemaError, match="uses no extractor"):
        find("flicker")(world_clips(1)[0], extractor="world")
    with pytest.raises(KinemaError, match="there is no extractor 'nothing'"):
        load_extractor("nothing")


@pytest.mark.parametrize("name", [name for name in ALL if name not in OF_CLIPS])
def test_a_set_too_small_is_refused(name):
    metric = ALL[name]
    made = [rows(world_clips(1)[0], extractor_of(metric), metric)]
    with pytest.raises(KinemaError, match="at least"):
        metric(made, made)
    if "reference" in metric.needs:
        with pytest.raises(KinemaError, match="reference"):
            metric(made)
