"""`kinema.classify` on every row of the families: what a model is given, its padding and its sound are no hindrance."""

import numpy as np
import pytest

from backbones.families import cases, networks
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.understanding.classify import classify

CASES = cases()
NETWORKS = networks()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_that_reads_words_classifies(name, folders):
    case, backbone = CASES[name], load(folders(name), device="cpu", dtype="float32")
    size = {key: value for key, value in case.request.items() if key in ("num_frames", "height", "width")}
    clip = np.random.default_rng(0).integers(0, 255, (7, 24, 40, 3), np.uint8)

    def errors():
        return classify(clip, ["a red ball rolls", "a blue cube"], model=backbone, samples=2, **size).errors

    if not case.prompts:
        with pytest.raises(KinemaError, match="reads no words"):
            errors()
        return
    found = errors()
    assert found.isfinite().all() and bool((found[0] != found[1]).any()), "the text makes no difference"
