"""The leap: where it lands, when it comes, and that nothing is asked behind it."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.path import RectifiedFlow
from kinema.core.run import State
from kinema.core.technique import Step, Technique
from kinema.guidance.apg import APG
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.speed.linear_leap import LinearLeap

STEPS = 8


@pytest.fixture
def asked(tiny_wan):
    """A model, and how many calls its network had."""
    backbone, calls = load(tiny_wan, device="cpu", dtype="float32"), []
    backbone.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    return backbone, calls


@dataclass(frozen=True, kw_only=True)
class Noting(Technique):
    """Keeps the clean estimates of all steps."""

    notes: list

    def clean(self, step, x0):
        self.notes.append(x0)
        return x0


def run(backbone, *parts, **fields):
    asked = Request(prompt="a red ball", num_inference_steps=STEPS, num_frames=5, height=32, width=32, seed=3, **fields)
    return denoise(backbone, asked, parts)[0]


@pytest.mark.parametrize("solver", [None, "euler", "dpm++"])
@pytest.mark.parametrize("guide", [CFG(scale=4.0), APG()], ids=lambda g: g.name)
def test_the_result_is_the_clean_estimate_of_the_last_call(solver, guide, asked):
    backbone, calls = asked
    estimates = []
    plain = run(backbone, guide, Noting(notes=estimates), scheduler=solver)
    calls.clear()
    leapt = run(backbone, guide, LinearLeap(at=0.5), scheduler=solver)
    torch.testing.assert_close(leapt, estimates[4], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(leapt, plain, atol=1e-3)
    assert len(calls) == 5  # steps 0 to 4, both branches in one call


def test_a_straight_path_loses_nothing(asked, monkeypatch):
    backbone, _ = asked
    v, calls = torch.randn(backbone.latent_shape(1, 5, 32, 32), generator=torch.Generator().manual_seed(0)), []
    monkeypatch.setattr(type(backbone), "predict", lambda *_: calls.append(1) or v)
    plain = run(backbone)
    torch.testing.assert_close(run(backbone, LinearLeap(least=0.0, patience=1)), plain, atol=1e-5, rtol=0)
    assert len(calls) == STEPS + 3  # a first velocity, one to compare with it, and one that is no better


def steps_of(cosines, technique, count=30):
    """Feeds velocities whose cosines with the one before are given to a batch; the step that is the last call."""
    state, path = State(), RectifiedFlow()
    samples = len(cosines[0])
    fake = SimpleNamespace(
        state=state, path=path, requests=[0] * samples, conditions=SimpleNamespace(companion=None, known_frames=None)
    )
    technique.start(fake)
    angle = torch.zeros(samples)
    for i in range(count):
        if i:
            angle = angle + torch.tensor(cosines[min(i, len(cosines) - 1)]).acos()
        v = torch.stack([angle.cos(), angle.sin()], dim=1)[..., None, None, None]
        step = Step(i, count, 1 - i / count, 1 - (i + 1) / count, run=fake, x=torch.zeros_like(v))
        technique.clean(step, path.clean(step.x, v, step.t))
        if state[technique]["x0"] is not None:
            return i
    return None


def test_it_waits_for_the_least_steps_and_for_patience():
    same = [[0.9]] * 30  # the cosine of step 14 is the first that counts, then three bring nothing
    assert steps_of(same, LinearLeap()) == 17
    assert steps_of(same, LinearLeap(patience=1, least=0.0)) == 2
    growing = [[0.5 + 0.01 * i] for i in range(20)] + [[0.69]] * 10
    assert steps_of(growing, LinearLeap()) == 22
    assert (
        steps_of([[0.5 + 0.0005 * i] for i in range(30)], LinearLeap(patience=1)) == 15
    )  # growth within the tolerance
    assert steps_of(same, LinearLeap(least=1.0)) is None


def test_a_batch_leaps_with_its_last_sample():
    other = [[0.9, 0.5 + 0.01 * min(i, 20)] for i in range(30)]
    assert steps_of(other, LinearLeap()) == 23


def test_known_frames_do_not_count():
    technique, v = LinearLeap(least=0.0, patience=1), torch.zeros(1, 1, 2, 1, 1)
    v[:, :, 1] = 1.0
    known = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
    fake = SimpleNamespace(conditions=SimpleNamespace(known_frames=known))
    state = {"v": None, "best": torch.zeros(1), "left": torch.ones(1).long(), "x0": None}
    for i, given in enumerate([5.0, -3.0, 7.0]):
        v = v.clone()
        v[:, :, 0] = given
        assert technique._leaps(Step(i, 9, 0.5, 0.4, run=fake), v, state) == (i == 2)


@pytest.mark.parametrize(
    "bad, says",
    [({"least": 1.5}, "least 1.5"), ({"patience": 0}, "patience 0"), ({"at": 1.0}, "at of linear_leap is 1.0")],
)
def test_refuses_before_the_first_step(bad, says, asked):
    with pytest.raises(KinemaError, match=says):
        run(asked[0], LinearLeap(**bad))
