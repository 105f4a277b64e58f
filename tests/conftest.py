"""Fixtures of all tests: folders of tiny models, built once a session."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Timing decides no test, and the same examples are drawn everywhere.
settings.register_profile(
    "kinema", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("kinema")

sys.path.insert(0, str(Path(__file__).parent))

import tiny  # noqa: E402


def pytest_sessionstart():
    """Nearly every test needs these libraries; the garbage collector need not look through them each time."""
    importlib.import_module("diffusers.models")
    importlib.import_module("transformers.models.t5.modeling_t5")
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """tiny_folder("wan21_i2v", ...) gives the folder of a tiny model of that kind (see tiny.BUILDERS)."""
    made = {}

    def folder(kind: str, **options) -> Path:
        key = (kind, *sorted(options.items()))
        if key not in made:
            made[key] = tiny.BUILDERS[kind](tmp_path_factory.mktemp(kind), **options)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def tiny_wan(tiny_folder) -> Path:
    """Folder of a tiny text and image to video model, as Wan 2.2 TI2V-5B."""
    return tiny_folder("wan22_ti2v")
