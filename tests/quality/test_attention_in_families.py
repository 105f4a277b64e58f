"""Methods that act on attention, on transformers with one sequence and on UNets."""

import pytest
import torch

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.loop import denoise
from kinema.events.vstar import VSTAR
from kinema.guidance.cfg import CFG
from kinema.quality.broadway import BroadWay
from kinema.quality.paint_with_words import PaintWithWords
from kinema.quality.vico import Vico
from kinema.request import Request

CASES = cases()
ALL = dict(noise_range=(1.0, 0.0))
# Each method at rest, and at work.
PAIRS = [
    (VSTAR(scale=0.0), VSTAR(regularized_range=(1.0, 0.0))),
    (BroadWay(alpha=0.0, beta=1.0, **ALL), BroadWay(beta=1.0, **ALL)),
    (PaintWithWords(regions="red ball: 0 0 0.5 1", weight=0.0), PaintWithWords(regions="red ball: 0 0 0.5 1")),
    (Vico(lr=0.0, **ALL), Vico(lr=0.5, targets=(0.0,) * 3, iterations=1, **ALL)),
]


@pytest.fixture(scope="module", params=["cogvideox 5b", "animatediff"])
def family(request, tmp_path_factory):
    case = CASES[request.param]
    asked = Request(prompt="a red ball rolls left", **{**case.request, "num_inference_steps": 1, "seed": 1})
    return load(case.build(tmp_path_factory.mktemp("model")), device="cpu", dtype="float32"), asked


@pytest.mark.parametrize("rests, works", PAIRS, ids=lambda part: part.name)
def test_changes_the_result_and_nothing_else(family, rests, works):
    backbone, asked = family
    plain, resting, working = (denoise(backbone, asked, [*part, CFG(scale=3.0)])[0] for part in ([], [rests], [works]))
    torch.testing.assert_close(resting, plain, atol=1e-5, rtol=1e-4)
    assert (working - resting).abs().max() > 1e-6 and working.isfinite().all()
