"""Diffusion Classifier on a fake model whose error for each text is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kinema.backbones.protocol import Conditions
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.core.registry import find, readers
from kinema.core.schedule import Clock
from kinema.request import Request
from kinema.understanding.classify import classify, counted, resized
from kinema.understanding.diffusion_classifier import DiffusionClassifier, standard_error
from kinema.video import Video

SHAPE = (1, 4, 3, 2, 2)
OFF = {"a": 0.5, "b": 0.2, "c": 0.9, "d": 1.5}  # how far the velocity is off under each text
X0 = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
noise_free = DiffusionClassifier(samples=4)


class Fake:
    """Gives the true velocity, off by OFF[text] in every cell, or by that times the noise with `noisy`."""

    droppable = frozenset({"text"})

    def __init__(self, noisy: bool = False, known: int = 0) -> None:
        self.noisy, self.known, self.calls = noisy, known, []

    def prepare(self, requests):
        conditions = Conditions((len(requests), *SHAPE[1:]), 1, 8.0, prompts=[r.prompt for r in requests])
        if self.known:
            conditions.known, conditions.known_frames = X0, (torch.arange(3) < self.known)[None, None, :, None, None]
        return conditions

    def noise(self, conditions, generators):
        return torch.cat([torch.randn(SHAPE, generator=g) for g in generators])

    def velocity(self, x, t, conditions, dropped=frozenset()):
        assert not dropped, "scores take no branch but the prompt's own"
        self.calls += [(text, t) for text in conditions.prompts]
        off = torch.tensor([OFF[text] for text in conditions.prompts])[:, None, None, None, None]
        if self.known:
            torch.testing.assert_close(x[:, :, : self.known], X0[:, :, : self.known].expand(len(x), -1, -1, -1, -1))
            x = torch.where(conditions.known_frames, 100.0, x)  # what is given has no noise to be told
        noise = (x - (1 - t) * X0) / t
        return noise - X0 + off * (noise if self.noisy else 1)


def asked(texts):
    return [Request(prompt=text) for text in texts]


@pytest.mark.parametrize("settings, error", [
    (dict(weighting="velocity"), lambda off, t: off**2),
    (dict(weighting="noise"), lambda off, t: ((1 - t) * off) ** 2),
    (dict(weighting="velocity", l1=True), lambda off, t: off),
    (dict(weighting="noise", l1=True), lambda off, t: (1 - t) * off),
])  # fmt: skip
def test_errors_are_those_of_the_formula(settings, error):
    method = DiffusionClassifier(samples=4, **settings)
    found = method.classify(Fake(), asked("abc"), X0)
    true = [[error(OFF[text], t) for t in (0.125, 0.375, 0.625, 0.875)] for text in "abc"]
    torch.testing.assert_close(found.errors, torch.tensor(true, dtype=torch.float64), rtol=1e-4, atol=1e-7)
    assert [score.text for score in found.scores] == ["b", "a", "c"] and found.best == "b"
    mean, least = (sum(row) / 4 for row in (true[0], true[1]))
    assert found.scores[1].gap == pytest.approx(mean - least, rel=1e-4) and found.scores[0].gap == 0


def test_shared_noise_cuts_the_standard_error_of_differences():
    def classified(shared):
        method = DiffusionClassifier(samples=32, weighting="velocity", shared_noise=shared)
        return method.classify(Fake(noisy=True), asked("ab"), X0)

    shared, own = classified(True), classified(False)
    assert shared.best == own.best == "b"
    # off^2 |noise|^2 moves with the noise: a common one leaves (0.5^2 - 0.2^2) of it, others 0.5^2 and 0.2^2 apart.
    assert shared.scores[1].standard_error < own.scores[1].standard_error
    ratio = shared.errors[0] / shared.errors[1]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.25 / 0.04), rtol=1e-3, atol=0)
    assert (own.errors[0] / own.errors[1]).std() > 0.1


def test_the_same_seed_gives_the_same_errors_and_another_does_not():
    def errors(seed):
        return DiffusionClassifier(samples=4, seed=seed).classify(Fake(noisy=True), asked("ab"), X0).errors

    assert torch.equal(errors(0), errors(0)) and not torch.equal(errors(0), errors(9))


def test_elimination_reuses_samples_and_spends_them_on_the_best():
    fake = Fake()
    method = DiffusionClassifier(samples=16, eliminate=((2, 3), (4, 2)))
    told = []
    found = method.classify(fake, asked("abcd"), X0, tell=lambda done, count: told.append((done, count)))
    assert [(s.text, s.samples) for s in found.scores] == [("b", 16), ("a", 16), ("c", 4), ("d", 2)]
    assert len(fake.calls) == len(set(fake.calls)) == 4 * 2 + 3 * 2 + 2 * 12
    assert told[-1] == (38, 38)
    whole = DiffusionClassifier(samples=16).classify(Fake(), asked("abcd"), X0).errors
    assert torch.equal(found.errors[:2], whole[:2])  # the survivors lose nothing
    first = sorted(t for text, t in fake.calls if text == "d")
    assert first == [0.5 / 16, 8.5 / 16]  # even over all times


def test_probabilities_are_a_softmax_of_gaps():
    errors = torch.tensor([[1.0, 2.0, 3.0], [1.1, 2.1, 3.4]], dtype=torch.float64)
    scores = DiffusionClassifier(samples=3, temperature=0.1).ranked(["a", "b"], errors).scores
    assert scores[1].gap == pytest.approx(0.2)
    assert scores[1].standard_error == pytest.approx(((0.1 - 2 * 0.1 + 0.4) ** 2 / 6 / 3) ** 0.5)
    assert scores[1].probability == pytest.approx(np.exp(-2) / (1 + np.exp(-2)))
    own = DiffusionClassifier(samples=3).ranked(["a", "b"], errors)
    assert own.temperature == pytest.approx(scores[1].standard_error)


def test_the_standard_error_leaves_out_what_changes_smoothly_along_the_grid():
    noise = 0.1 * torch.randn(4000, generator=torch.manual_seed(0), dtype=torch.float64)
    trend = torch.linspace(-3, 3, 4000, dtype=torch.float64).square()
    assert standard_error(noise + trend) == pytest.approx(0.1 / 4000**0.5, rel=0.05)
    assert standard_error(torch.tensor([1.0, 1.2])) == pytest.approx(0.1)  # sd of two values / sqrt(2)


def test_only_weighted_frames_and_those_that_are_made_count():
    class Last(Fake):  # is off in the last latent frame alone
        def velocity(self, x, t, conditions, dropped=frozenset()):
            true = (x - (1 - t) * X0) / t - X0
            v = super().velocity(x, t, conditions, dropped)
            return torch.cat([true[:, :, :2], v[:, :, 2:]], 2)

    method = DiffusionClassifier(samples=2, weighting="velocity")

    def first(fake, weight=None):
        return float(method.classify(fake, asked("ab"), X0, weight).errors[0, 0])

    assert first(Last()) == pytest.approx(0.25 / 3, rel=1e-4)
    assert first(Last(), torch.tensor([0.0, 0.0, 1.0])) == pytest.approx(0.25, rel=1e-4)
    assert first(Last(), torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(0, abs=1e-9)
    assert first(Fake(known=2)) == pytest.approx(0.25, rel=1e-4)
    with pytest.raises(KinemaError, match="no frame is left"):
        first(Fake(known=2), torch.tensor([1.0, 1.0, 0.0]))


def test_times_are_even_on_the_models_own_clock():
    clock = Clock(torch.linspace(0.999, 0.01, 1000).tolist())
    assert noise_free.levels(SimpleNamespace()) == [0.125, 0.375, 0.625, 0.875]
    assert noise_free.levels(SimpleNamespace(clock=clock)) == [clock.levels[k] for k in (125, 375, 625, 875)]


@pytest.mark.parametrize("settings, words", [
    (dict(samples=1), "samples is 1"),
    (dict(weighting="elbo"), "use noise or velocity"),
    (dict(temperature=0.0), "temperature is 0.0"),
    (dict(eliminate=((64, 2),)), "eliminate is"),
    (dict(eliminate=((8, 5),)), "at most 4"),
    (dict(eliminate=((16, 2), (8, 2))), "eliminate is"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(KinemaError, match=words):
        DiffusionClassifier(**settings).classify(Fake(), asked("abcd"), X0)


def test_texts_are_two_different_ones():
    for texts in (["a"], ["a", "a"], []):
        with pytest.raises(KinemaError, match="two different texts"):
            classify(np.zeros((5, 32, 32, 3), np.uint8), texts)
    with pytest.raises(KinemaError, match="empty"):
        classify(np.zeros((5, 32, 32, 3), np.uint8), ["a", " "])


def test_frames_of_a_part_count_in_their_latent_frames():
    times = np.arange(9) / 8.0
    assert counted(times, (0.0, 0.0), 4, 0).tolist() == [1, 0, 0]
    assert counted(times, (0.5, 0.7), 4, 0).tolist() == [0, 1, 1]  # frames 4 and 5
    assert counted(times, (0.9, 9.0), 4, 2).tolist() == [0, 0, 0, 0, 1]
    assert counted(times, (0.0, 9.0), 4, 1).tolist() == [0, 1, 1, 1]
    with pytest.raises(KinemaError, match="the clip goes from 0 to 1"):
        counted(times, (2.0, 3.0), 4, 0)


def test_clips_take_the_models_size_and_length():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(20, 1).repeat(30, 2).repeat(3, 3)
    made = resized(frames, 5, 8, 12)
    assert made.shape == (5, 8, 12, 3) and made[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]
    assert torch.equal(resized(frames, 9, 20, 30), torch.as_tensor(frames))


def test_the_command_prints_one_object(tiny_folder, tmp_path, capsys):
    clip = tmp_path / "clip.mp4"
    Video(np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), np.uint8)).save(clip)
    words = ["classify", str(clip), "a red ball", "a blue cube", "--model", str(tiny_folder("kinema_mini"))]
    words += ["--num-frames", "5", "--height", "32", "--width", "32"]
    assert run([*words, "--samples", "2", "--seconds", "0:0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {score["text"] for score in told["scores"]} == {"a red ball", "a blue cube"}
    assert sum(score["probability"] for score in told["scores"]) == pytest.approx(1)
    assert run([*words, "--samples", "2", "--eliminate", "2"]) == 2
    assert "use two numbers with a colon, as in 8:2" in capsys.readouterr().err
    assert run([*words, "--seconds", "1"]) == 2
    assert "use two numbers with a colon, as in 0:1.5" in capsys.readouterr().err
    assert run([*words, "--seconds", "0:99"]) == 2
    assert "seconds are 0 to 99, and the clip ends at 1.125" in capsys.readouterr().err


def test_it_is_listed_and_no_technique(capsys):
    (entry,) = [entry for entry in readers().values() if entry.cls is DiffusionClassifier]
    assert (entry.topic, entry.paper, entry.command) == ("understanding", "arXiv:2303.16203", "classify")
    assert run(["techniques"]) == 0 and entry.name in capsys.readouterr().out
    assert run(["techniques", entry.name]) == 0 and "kinema classify" in capsys.readouterr().out
    with pytest.raises(KinemaError, match="kinema classify"):
        find(entry.name)
    for part in ("Paper:", "Departures:", "Shapes:", "Raises:"):
        assert part in (DiffusionClassifier.__doc__ or "")
