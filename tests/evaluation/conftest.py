"""Folders of clips, and what an evaluation of them gives, for all tests of the evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from folders import ASKED, save_clips, save_reference

from kinema.evaluation.evaluate import evaluate
from kinema.metrics import metric as registry
from kinema.metrics.metric import set_metric


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return save_clips(tmp_path_factory.mktemp("eval") / "clips")


@pytest.fixture(scope="session")
def reference(clips):
    return save_reference(clips.parent / "reference")


def register_spread(patch):
    """A metric of sets for these tests: how far the means of two sets are from each other."""
    patch.setattr(registry, "_METRICS", registry.metrics())

    @set_metric("spread", unit="", low=0, high=np.inf, better="lower", source="this test", sees="noise",
                ignores="none", extractor="world", features="clip")  # fmt: skip
    def spread(made, reference) -> float:
        """Distance of the means."""
        return float(np.linalg.norm(np.mean([*made], axis=0, dtype=float) - np.mean([*reference], axis=0, dtype=float)))

    return spread


@pytest.fixture
def spread(monkeypatch):
    return register_spread(monkeypatch)


@pytest.fixture(scope="session")
def whole(clips, reference, tmp_path_factory):
    """The files of an evaluation that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        register_spread(patch)
        out = tmp_path_factory.mktemp("whole") / "out"
        return evaluate(clips, reference=reference, out=out, **ASKED)
