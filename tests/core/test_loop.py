"""The loop and its hooks, on a backbone whose answer is known: the flow to one fixed clip."""

from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from kinema.backbones.protocol import Conditions
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.registry import technique, techniques
from kinema.core.schedule import Solver
from kinema.core.technique import HOOKS, Technique
from kinema.guidance.cfg import CFG
from kinema.request import Placement

SHAPE = (1, 2, 3, 4, 4)


class ToTarget:
    """v = (x - target) / t, the exact flow to `target`; without text it flows to zero."""

    name, family, sites, expert_boundary = "target", "closed form", (), None
    droppable = frozenset({"text"})
    hooks = frozenset(HOOKS) - {"context"}
    device, dtype, joint_branches, placement = torch.device("cpu"), torch.float32, True, Placement()

    def __init__(self, known=None):
        self.target = torch.linspace(-1, 1, 96).reshape(SHAPE)
        self.known = known
        self.calls = []

    def prepare(self, requests):
        frames = torch.tensor([True, False, False]).reshape(1, 1, 3, 1, 1) if self.known is not None else None
        steps = requests[0].num_inference_steps
        return Conditions(shape=SHAPE, num_inference_steps=steps, fps=8.0, known=self.known, known_frames=frames)

    def solver(self, conditions):
        return Solver(FlowMatchEulerDiscreteScheduler(shift=2.0), conditions.num_inference_steps, self.device)

    def noise(self, conditions, generators):
        return torch.randn(SHAPE, generator=generators[0])

    def velocity(self, x, t, conditions, dropped):
        self.calls.append(dropped)
        return (x - (0 if "text" in dropped else 1) * self.target) / t

    def velocities(self, x, t, conditions, branches):
        return [self.velocity(x, t, conditions, dropped) for dropped in branches]

    def decode_pieces(self, x, conditions=None):
        yield x

    @contextmanager
    def tapped(self, on):
        yield

    @contextmanager
    def keeping_texts(self):
        yield self


def request(steps=4, seed=0):
    return SimpleNamespace(num_inference_steps=steps, seed=seed)


def test_reaches_the_data_in_any_number_of_steps():
    for steps in (1, 3, 7):
        backbone = ToTarget()
        torch.testing.assert_close(sample(backbone, request(steps)), backbone.target, atol=1e-5, rtol=0)


def test_guidance_extrapolates_between_the_branches():
    # Both branches are linear in their target, so guidance flows to scale * target.
    backbone = ToTarget()
    out = sample(backbone, request(), [CFG(scale=3.0)])
    torch.testing.assert_close(out, 3 * backbone.target, atol=1e-4, rtol=0)
    assert len(backbone.calls) == 8


def test_an_owner_rests_outside_its_noise_range():
    backbone = ToTarget()
    sample(backbone, request(), [CFG(scale=3.0, noise_range=(1.0, 0.99))])
    assert len(backbone.calls) == 5


def test_given_frames_stay_and_the_rest_moves():
    backbone = ToTarget(known=torch.full(SHAPE, 9.0))
    seen = []
    out = sample(backbone, request(), on_step=lambda step, x: seen.append(x[:, :, 0].unique().tolist()))
    assert seen == [[9.0]] * 4 and out[:, :, 0].unique().tolist() == [9.0]
    torch.testing.assert_close(out[:, :, 1:], backbone.target[:, :, 1:], atol=1e-5, rtol=0)


@dataclass(frozen=True, kw_only=True)
class Named(Technique):
    log: list
    label: str

    def velocity(self, step, x, branch, next):
        self.log.append(f"{self.label} in")
        out = next(x)
        self.log.append(f"{self.label} out")
        return out


def test_first_technique_is_outermost():
    log = []
    sample(ToTarget(), request(1), [Named(log=log, label="a"), Named(log=log, label="b")])
    assert log == ["a in", "b in", "b out", "a out"]


@dataclass(frozen=True, kw_only=True)
class Doubled(Technique):
    def clean(self, step, x0):
        return 2 * x0


def test_editing_the_clean_estimate_moves_the_result():
    backbone = ToTarget()
    torch.testing.assert_close(sample(backbone, request(), [Doubled()]), 2 * backbone.target, atol=1e-4, rtol=0)


@dataclass(frozen=True, kw_only=True)
class TextByFrame(Technique):
    name = "text_by_frame"

    def context(self, step, site, frames):
        return None


def test_refuses_what_cannot_work_and_names_both():
    with pytest.raises(KinemaError, match="text_by_frame needs the hook 'context'.*closed form"):
        sample(ToTarget(), request(), [TextByFrame()])
    with pytest.raises(KinemaError, match="cfg and cfg both own 'guide'"):
        sample(ToTarget(), request(), [CFG(), CFG()])
    with pytest.raises(KinemaError, match="there is no request; give one or more"):
        sample(ToTarget(), [])
    with pytest.raises(KinemaError, match="guidance_scale is -1"):
        sample(ToTarget(), request(), [CFG(scale=-1.0)])


@pytest.mark.parametrize("bad", [dict(noise_range=(0.2, 0.8)), dict(noise_range=(2.0, 0.0)), dict(block_range=(3, 1))])
def test_refuses_a_window_in_which_nothing_can_happen(bad):
    with pytest.raises(KinemaError, match=f"{next(iter(bad))} of cfg is"):
        sample(ToTarget(), request(), [CFG(**bad)])


def test_a_name_is_registered_once():
    def other(module):
        return technique("cfg", paper="", base="", neutral={})(type("CFG", (Technique,), {"__module__": module}))

    techniques()
    with pytest.raises(KinemaError, match="'cfg' is there already"):
        other("elsewhere")
