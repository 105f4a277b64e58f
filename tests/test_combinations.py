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

import adapters
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
    return adapters.give(load(tiny_folder("kinema_mini"), device="cpu", dtype="float32"))


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


@pytest.fixture(scope="module")
def pairs(mini):
    """together(a, b) is why two techniques cannot run together on `mini`, None when they do; each pair is run once."""
    known = {}

    def together(a, b):
        if frozenset((a, b)) not in known:
            beside = {p.name: p for p in [*asked.parts(a), *asked.parts(b)]}
            first = refusal(mini, [asked.part(a), asked.part(b)], [a, b])
            if first is not None and len(beside) > 2:  # what helps one of them when it is alone may hinder it here
                first = refusal(mini, list(beside.values()), [a, b])
            if first is not None and reason(first) == "order":
                assert refusal(mini, [asked.part(b), asked.part(a)], [a, b]) is None
            known[frozenset((a, b))] = first
        return known[frozenset((a, b))]

    return together


REASONS = {  # in a sentence of refusal -> how the page calls it
    "both own 'guide'": "guidance",
    "both own 'cache'": "cache",
    "both own 'chunks'": "chunks",
    "both own 'context'": "texts",
    "both bring the condition": "condition",
    "both show the model its clip in windows": "windows",
    "put it first in the list of techniques": "order",
    "in 2 chunks|cannot plan this video|in several": "one clip",
    "shows the clip in windows": "whole clip",
    "frames read others": "one prompt",
    "asks the model as it is": "as it is",
    "cannot run together": "together",
}


def reason(sentence):
    return next((name for words, name in REASONS.items() if re.search(words, sentence)), sentence)


def row(backbone, name, together):
    """The line of a technique: with which ones it is refused and why, or what it lacks on `mini`."""
    if (alone := unable(backbone, name)) is not None:
        what = re.search("leaves out '(\\w+)'", alone)
        return f"| `{name}` | does not run on `mini`: {f'no {what[1]} to leave out' if what else alone} |"
    refused = {}
    for other in NAMES:
        if other != name and (sentence := together(*sorted((name, other)))) and unable(backbone, other) is None:
            refused.setdefault(reason(sentence), []).append(f"`{other}`")
    order = [*REASONS.values()]
    kinds = sorted(refused, key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
    return f"| `{name}` | {'; '.join(f'{kind}: ' + ', '.join(refused[kind]) for kind in kinds) or 'none'} |"


def unable(backbone, name):
    """Why a technique does not run on a model, with what it must stand beside; None when it does."""
    parts = asked.parts(name)
    return refusal(backbone, parts, [part.name for part in parts])


HEAD = """# Techniques together

Any number of techniques may be named at once. This page says for each with which others it is refused, and on which
families of models. **It tells what runs, not how good the result is**: two methods that run together may still be
worse than one. It is written by `tests/test_combinations.py`, which runs each pair with its defaults on a small model
of the kind of `mini`, and fails when the page is not true. What is not listed runs; what is refused is refused before
the first step, in one sentence with its names.

| reason | the two together |
|---|---|
| guidance | both make one velocity of the branches of the guidance |
| cache | both say what the network keeps from step to step |
| chunks | both plan the chunks of a longer video |
| texts | both say which text each frame reads |
| condition | both are adapters for the same thing |
| windows | both show the model the clip in windows |
| order | run when the one that is later in the alphabet is named first |
| one clip | one of them works on one clip, and the other makes several |
| whole clip | one of them has a table for every place of the clip, and the other shows windows of it |
| one prompt | one of them paints words of the prompt, and the other lets frames read others |
| as it is | `vico` asks the model as it is about the whole clip; the other changes what it is shown or computes |
| together | one of them names the other as what it cannot run with; its file says why |

| technique | is refused with |
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
def test_the_page_tells_what_runs_with_what(name, mini, pairs):
    check(row(mini, name, pairs), f"| `{name}` |", HEAD if name == NAMES[0] else None)


@pytest.mark.parametrize("family", ROWS)
def test_the_page_tells_what_runs_on_which_family(family, tmp_path):
    case = cases()[family]
    backbone = adapters.give(load(case.build(tmp_path), device="cpu", dtype="float32"))
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
    ("ac3d", "gen1:frames=33", "freelong:window=3"),
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
