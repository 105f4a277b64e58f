from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.families import cases


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made, known = {}, cases()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = known[name].build(tmp_path_factory.mktemp("model"))
        return made[name]

    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Paths of a first and a last picture."""
    root = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, name in enumerate(("image", "last_image")):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{name}.png")
        paths.append(root / f"{name}.png")
    return paths
