"""Every technique on every family, and every pair of them, runs or is refused by name before the first step.

docs/combinations.md says which.

    KINEMA_WRITE=1 pytest tests/test_combinations.py

writes the page.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import asked
from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.registry import techniques
from kinema.core.rollout import Rollout
from kinema.pipeline import build_technique
from kinema.request import Part, Request

NAMES = list(techniques())
PAGE = Path(__file__).parent.parent / "docs" / "combinations.md"
SIZE = dict(num_frames=13, height=32, width=32, num_inference_steps=3, seed=3, fps=8)


@pytest.fixture(scope="module")
def mini(tiny_folder):
    """A small model of the kind of `mini`."""
    return load(tiny_folder("kinema_mini"), device="cpu", dtype="float32")


def refusal(backbone, parts, names, wanted=SIZE):
    """Why these cannot run together, None when they do. A refusal comes before the first step and names one of them."""
    steps = []
    try:
        request = Request(**{"prompt": asked.EVENTS, **wanted})
        rollout = Rollout(backbone, request, parts, lambda step, x: steps.append(x))
        list(rollout.frames())
    except KinemaError as error:
        assert not steps, f"{names} are refused after {len(steps)} steps: {error}"
        assert any(name in str(error) for name in names), f"a refusal of {names} names neither: {error}"
        return str(error)
    assert torch.stack([x.isfinite().all() for x in steps]).all(), f"{names} together are not finite"
    return None


def row(backbone, name):
    """The line of a technique: with whom it is refused, and whether it runs alone."""
    alone = refusal(backbone, [asked.part(name)], [name])
    if alone is not None and name not in asked.BESIDE:
        return f"| `{name}` | does not run on `mini`: {alone.replace(backbone.name, 'mini')} |"
    refused = []
    for other in NAMES[NAMES.index(name) + 1 :]:
        together = {p.name: p for p in [*asked.parts(name), *asked.parts(other)]}
        if refusal(backbone, list(together.values()), [name, other]) is not None:
            alone = refusal(backbone, asked.parts(other), [other])
            refused += [f"`{other}`"] if alone is None else []  # otherwise its own line says why
    return f"| `{name}` | {', '.join(refused) or 'none'} |"


HEAD = """# Techniques together

Any number of techniques may be named at once. This page says for every pair whether the two run together on `mini`,
with their defaults; it is written by `tests/test_combinations.py`, which runs each pair on a small model of the same
kind and fails when the page is not true. A pair stands in the line of whichever comes first in the alphabet; one
that is not listed runs. What is refused is refused before the first step, in one sentence with its names.

| technique | is refused with, of those behind it |
|---|---|
"""
FAMILIES_HEAD = """
## On the families

Each technique with its defaults on a small model of each family. What is not listed runs.

| family | refuses |
|---|---|
"""
ROWS = (
    "wan 2.1 t2v", "wan 2.2 ti2v", "cogvideox 2b", "cogvideox 5b", "cogvideox 1.5", "hunyuan t2v", "hunyuan 1.5 t2v",
    "ltx 0.9.5 t2v", "ltx 2.0 t2v", "mochi", "animatediff", "svd",
)  # fmt: skip


def check(found, start, head):
    """Compares a line of the page, or writes it; `head` stands ahead of the first one of a table."""
    if os.environ.get("KINEMA_WRITE"):
        before = "" if head == HEAD else PAGE.read_text()
        PAGE.write_text(before + (head or "") + found + "\n")
        return
    told = re.findall(rf"^{re.escape(start)} .*$", PAGE.read_text(), flags=re.MULTILINE)
    assert told == [found], "write the page anew: KINEMA_WRITE=1 pytest tests/test_combinations.py"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_what_runs_with_what(name, mini):
    check(row(mini, name), f"| `{name}` |", HEAD if name == NAMES[0] else None)


@pytest.mark.parametrize("family", ROWS)
def test_the_page_tells_what_runs_on_which_family(family, tmp_path):
    case = cases()[family]
    backbone = load(case.build(tmp_path), device="cpu", dtype="float32")
    picture = tmp_path / "picture.png"
    Image.new("RGB", (48, 32), (200, 40, 30)).save(picture)
    wanted = {
        "prompt": asked.EVENTS if case.prompts else "",
        "num_frames": 19 if family == "mochi" else 17,
        "fps": 8,
        "seed": 3,
    }
    steps = 8 if family in ("animatediff", "svd") else 3  # the first of three is already below some ranges
    wanted = {
        **case.request,
        **wanted,
        "num_inference_steps": steps,
        **({"image": str(picture)} if case.images else {}),
    }
    beside = {n: [p.name for p in asked.parts(n)] for n in NAMES}
    refused = [f"`{n}`" for n in NAMES if refusal(backbone, asked.parts(n), beside[n], wanted) is not None]
    found = f"| {family} | {', '.join(refused) or 'nothing'} |"
    check(found, f"| {family} |", FAMILIES_HEAD if family == ROWS[0] else None)


TOGETHER = (
    ("freelong:window=3", "talc", "linear_leap:at=0.5"),
    ("ditflow:lr=[0.1,0.1]", "ditctrl:window=4,overlap=2"),
    ("gen_l_video:window=3,stride=2", "first_block_cache:threshold=10"),
)


@pytest.mark.parametrize("texts", TOGETHER)
def test_the_combinations_of_the_pages_run_and_every_part_matters(texts, mini):
    def latents(parts):
        found = []
        wanted = Request(prompt=asked.EVENTS, **{**SIZE, "num_frames": 33, "num_inference_steps": 6})
        list(Rollout(mini, wanted, parts, lambda step, x: found.append(x)).frames())
        return found[-1]

    named = [Part.parse(text) for text in texts]
    parts = [build_technique(p.model_copy(update={"options": asked.options(p.name) | p.options})) for p in named]
    together = latents(parts)
    for part in parts:
        assert not torch.equal(together, latents([p for p in parts if p is not part])), f"{part.name} does nothing"
