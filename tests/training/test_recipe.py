"""Recipes: settings from YAML, overrides, errors that say where and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import adapters
from kinema.training.recipe import RECIPES, build, load_section, read_recipe


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 1.0
    steps: int | None = None
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    weights: dict[str, float] = field(default_factory=dict)
    flag: bool = False
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text("stage1:\n  name: n\n  sizes: [1, 2]\n  inner: {lr: 2e-3, kind: b}\n  weights: {x: 1}\n")
    return path


def test_reads_and_converts(file):
    got = load_section(file, "stage1", Outer)
    assert got == Outer(name="n", sizes=(1, 2), inner=Inner(lr=2e-3, kind="b"), weights={"x": 1.0})


def test_overrides(file):
    got = load_section(file, "stage1", Outer, ["stage1.inner.steps=7", "stage1.pair=[3, 4]", "stage1.flag=true"])
    assert (got.inner.steps, got.inner.lr, got.pair, got.flag) == (7, 2e-3, (3, 4.0), True)


@pytest.mark.parametrize(
    "override, says",
    [
        ("stage1.inner.lrr=1", "stage1.inner has no setting 'lrr'; it has lr, steps, kind"),
        ("stage1.inner.lr=fast", "stage1.inner.lr is 'fast'; use a number"),
        ("stage1.inner.lr=.nan", "stage1.inner.lr is nan; use a number"),
        ("stage1.inner.steps=.inf", "stage1.inner.steps is inf; use a whole number"),
        ("stage1.inner.lr=[", "is not valid YAML"),
        ("stage1.inner.steps=1.5", "stage1.inner.steps is 1.5; use a whole number"),
        ("stage1.inner.kind=c", "stage1.inner.kind is 'c'; use one of 'a', 'b'"),
        ("stage1.flag=1", "stage1.flag is 1; use true or false"),
        ("stage1.sizes=3", "stage1.sizes is 3; use a list"),
        ("stage1.pair=[1]", "use a list of 2"),
        ("stage1.name.x=3", "goes into 'name', which is a single value"),
        ("stage9.name=3", "names no section; use one of stage1"),
        ("name=3", "not of the form section.key=value"),
        ("stage1.name", "not of the form section.key=value"),
    ],
)
def test_refuses(file, override, says):
    with pytest.raises(ValueError, match=says.replace("[", r"\[")):
        load_section(file, "stage1", Outer, [override])


def test_refuses_files_and_gaps(tmp_path, file):
    with pytest.raises(ValueError, match="there is no recipe 'nosuch'; use one of"):
        read_recipe("nosuch")
    with pytest.raises(ValueError, match="has no section 'stage2'; it has stage1"):
        load_section(file, "stage2", Outer)
    with pytest.raises(ValueError, match="place needs name"):
        build(Outer, {}, "place")
    file.write_text("a: [")
    with pytest.raises(ValueError, match=r"x\.yaml is not valid YAML"):
        read_recipe(file)


def test_the_recipes_of_the_package_are_complete():
    from kinema.training.adapter import AdapterSettings
    from kinema.training.autoencoder import AutoencoderRecipe
    from kinema.training.camera_reader import CameraReaderSettings
    from kinema.training.depth import DepthSettings
    from kinema.training.event_times import EventTimesSettings
    from kinema.training.judge import JudgeSettings
    from kinema.training.lora import LoraSettings
    from kinema.training.sight import SightSettings
    from kinema.training.video_settings import VideoSettings

    sections = {
        "mini": {"stage1": AutoencoderRecipe, "stage2": VideoSettings},
        "mini-mm": {"stage2": VideoSettings},
        "mini-unet": dict.fromkeys(("pictures", "temporal", "stage2"), VideoSettings),
        "finetune": {"finetune": VideoSettings},
        "lora": {"lora": LoraSettings},
        "judge": {"judge": JudgeSettings},
        "sight": {"sight": SightSettings},
        "depth": {"depth": DepthSettings},
        "event_times": {"event_times": EventTimesSettings},
        "camera_reader": {"camera_reader": CameraReaderSettings},
    }
    sections |= {f"adapter-{name}": {"adapter": AdapterSettings} for name in adapters.KINDS}
    assert {p.stem for p in RECIPES.glob("*.yaml")} == set(sections)
    for recipe, parts in sections.items():
        for section, cls in parts.items():
            assert load_section(recipe, section, cls).trainer.lr > 0
