"""The examples of the catalogue and of `kinema techniques NAME` are understood, and run."""

import shlex

import pytest

import adapters
import asked
from kinema.backbones.load import load
from kinema.cli.commands import command
from kinema.cli.examples import EXAMPLES, example
from kinema.core.errors import KinemaError
from kinema.core.registry import readers, techniques
from kinema.core.rollout import Rollout
from kinema.pipeline import build_technique
from kinema.request import Part, Request

ELSEWHERE = {"frame_cfg": "'image'", "image_cfg": "'image'", "modality_cfg": "'modality'"}  # other kinds of models


def parsed(name):
    """The values that the command line reads from an example."""
    words = shlex.split(example(name))
    assert words[0] == "kinema"
    context = command().make_context("kinema", words[1:])
    found, method, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
    return found, method.make_context(found, rest, parent=context).params


def test_every_method_has_an_example():
    assert set(EXAMPLES) == {*techniques(), *readers()}
    assert example("own") == 'kinema generate "a red ball rolls to the left on the grass" --technique own'
    assert [parsed(name)[0] for name in readers()] == [entry.command for entry in readers().values()]


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    return adapters.give(load(tiny_folder("kinema_mini"), device="cpu", dtype="float32"))


@pytest.mark.parametrize("name", list(techniques()))
def test_the_example_runs(name, backbone):
    _, values = parsed(name)
    parts = []
    for text in values["technique"]:
        part = Part.parse(text)
        files = {field: asked.clip() for field in techniques()[part.name].cls.files if field in part.options}
        ratios = {"ratios": asked.options(name)["ratios"]} if part.name == "magcache" else {}
        block = {"block": 0} if "block" in part.options else {}  # the small model has few
        parts.append(part.model_copy(update={"options": part.options | files | ratios | block}))
    assert name in [part.name for part in parts]
    frames = 33 if values["num_frames"] else 17
    fields = dict(prompt=values["prompt"] or "", timeline=values["timeline"], num_frames=frames, fps=4, seed=3)
    request = Request(**fields, height=32, width=32, num_inference_steps=3)
    made = Rollout(backbone, request, [build_technique(part) for part in parts])
    if name in ELSEWHERE:
        with pytest.raises(KinemaError, match=ELSEWHERE[name]):
            list(made.frames())
    else:
        assert sum(piece.shape[1] for piece in made.frames()) == frames
