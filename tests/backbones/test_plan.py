"""What `kinema plan` says of a model is what the loaded model has."""

import itertools
import json
import shutil

import pytest
import torch

from backbones.families import cases
from kinema.backbones.folder import Folder
from kinema.backbones.load import load, planner
from kinema.backbones.plan import Rehearsal, disk_bytes, part_of
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.pipeline import run_request
from kinema.request import Request

CASES = {name: case for name, case in cases().items() if "," not in name.removesuffix(", two experts")}


@pytest.mark.parametrize("name, dtype", zip(CASES, itertools.cycle(["float32", "bfloat16", "float16"]), strict=False))
def test_weights_are_those_of_the_loaded_model(name, dtype, tmp_path, monkeypatch):
    folder = CASES[name].build(tmp_path)
    loaded, read = {}, Folder.module

    def module(self, part, *options):
        loaded[part] = read(self, part, *options)
        return loaded[part]

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "module", module)
        backbone = load(folder, "cpu", dtype)
    if loaded.pop("motion_adapter", None) is not None:
        loaded["unet"] = backbone.unet
    planned = planner(folder, "cpu", dtype)
    assert {p.name: p.memory for p in planned.parts} == {n: part_of(n, m, folder).memory for n, m in loaded.items()}
    for part in planned.parts:
        if (folder / part.name).is_dir() and part.name != "unet":
            files = sorted((folder / part.name).glob("*.safetensors"))
            assert 0 < part.disk < sum(f.stat().st_size for f in files)

    made = planned.plan(Request(**CASES[name].request), False)
    assert made.decoding > made.num_frames * made.height * made.width * 3 and made.activations > 0
    conditions_shape = backbone.latent_shape(1, made.num_frames, made.height, made.width)
    assert made.latents == conditions_shape and made.tokens == len(backbone.grid(conditions_shape))


@pytest.mark.parametrize("scale, calls, samples", [(1, 2, 1), (5, 2, 2)])
def test_calls_are_those_that_are_made(tiny_wan, scale, calls, samples):
    request = Request(
        prompt="a ball", num_frames=5, height=32, width=32, num_inference_steps=2, guidance_scale=scale, seed=1
    )
    made = planner(tiny_wan, "cpu").plan(request, scale != 1)
    backbone = load(tiny_wan, "cpu")
    seen = []
    backbone.transformer.register_forward_pre_hook(
        lambda module, args, options: seen.append(len(options["hidden_states"])), with_kwargs=True
    )
    run_request(request, backbone=backbone)
    assert seen == [samples] * calls == [made.samples] * made.calls


def test_rehearsal_counts_what_lives_at_one_time():
    with Rehearsal() as counted:
        x = torch.empty(100, device="meta")
        y = x + 1
        del x
        z = y.view(10, 10) * 2
    assert (counted.most, counted.now) == (800, 800) and z.shape == (10, 10) and y is not None


def test_no_weight_is_read(tiny_wan, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_wan, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert [(p.name, p.memory) for p in planner(bare, "cpu").parts] == [
        (p.name, p.memory) for p in planner(tiny_wan, "cpu").parts
    ]
    assert all(p.disk is None for p in planner(bare, "cpu").parts)
    (tmp_path / "x.safetensors").write_bytes(b"1234")
    with pytest.raises(KinemaError, match="no readable safetensors header"):
        disk_bytes(tmp_path)


def test_command(tiny_wan, capsys, monkeypatch):
    size = ["--num-frames", "5", "--height", "64", "--width", "64"]
    assert run(["plan", "--model", str(tiny_wan), *size, "--steps", "3", "--device", "cpu", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["tokens"], answer["calls"], answer["samples"], answer["fits"]) == (2 * 2 * 2, 3, 2, True)
    assert answer["weights"] == sum(part["memory"] for part in answer["parts"])

    enough = answer["weights"] + max(answer["activations"], answer["decoding"]) - 1
    monkeypatch.setattr("kinema.cli.plan.free_memory", lambda device: enough)
    assert run(["plan", "--model", str(tiny_wan), *size, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "does not fit" in shown and "(exact" in shown and "(estimated)" in shown
    assert "What would fit: --dtype bfloat16" in shown and "--num-frames 1" in shown
    monkeypatch.setattr("kinema.cli.plan.free_memory", lambda device: 10)
    assert run(["plan", "--model", str(tiny_wan), *size, "--device", "cpu"]) == 0
    assert "No dtype, length or size of this model would fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, says",
    [
        (["--num-frames", "6"], "num_frames is 6; this model makes a multiple of 4 plus 1"),
        (["--height", "50"], "use 32 or 64"),
        (["--steps", "0"], "num_inference_steps is 0; use 1 to 1000"),
        (["--dtype", "int8"], "dtype is 'int8'"),
        (["--model", "mimi"], "there is no model 'mimi'"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(tiny_wan, capsys, words, says):
    given = words if "--model" in words else ["--model", str(tiny_wan), *words]
    assert run(["plan", "--device", "cpu", *given]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
