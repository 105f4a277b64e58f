"""Offloading changes no bit and leaves nothing on the device; fewer bits change the result by what is stated.

There is no second device here: a weight that rests holds no number instead, so that whoever computes with it is found.
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from PIL import Image

import kinema
from backbones.families import cases
from kinema.backbones import fitting, memory
from kinema.backbones.load import load, planner
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.guidance.pag import PAG
from kinema.request import Placement, Request

CASES = cases()
HERE, REST = torch.device("cpu"), torch.device("meta")
TYPES = {"layerwise_casting": 0.15, "int8": 0.01, "float8": 0.06, "int4": 0.2}  # most that latents may be off, relative


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path)
    return path


class Resting:
    """Plays a second memory: weights that go there are kept here, and hold no number until they come back."""

    def __init__(self):
        self.kept = {}  # id -> the tensor and its numbers

    def rest(self, tensors):
        for tensor in tensors:
            if tensor.is_floating_point() and id(tensor) not in self.kept:
                self.kept[id(tensor)] = tensor, tensor.data
                tensor.data = torch.full_like(tensor.data, math.nan)

    def come(self, tensors):
        for tensor in tensors:
            if id(tensor) in self.kept:
                tensor.data = self.kept.pop(id(tensor))[1]

    def share(self, network):
        """Of the tensors of a network, how many are at rest, 0..1."""
        found = [id(t) in self.kept for t in weights(network) if t.is_floating_point()]
        return sum(found) / len(found)


def weights(network):
    """Of a network; the statistics of latents, which are buffers of the autoencoder itself, are read where they lie."""
    return [*network.parameters(), *(b for child in network.children() for b in child.buffers())]


@pytest.fixture
def resting(monkeypatch):
    state, to = Resting(), torch.nn.Module.to

    def move(module, *args, **named):
        if args not in ((HERE,), (REST,)):
            return to(module, *args, **named)
        (state.rest if args[0] == REST else state.come)(weights(module))
        return module

    def members(group):
        inside = [t for module in group.modules for t in (*module.parameters(), *module.buffers())]
        return [*inside, *group.parameters, *group.buffers]

    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(ModuleGroup, "onload_", lambda group: state.come(members(group)))
    monkeypatch.setattr(ModuleGroup, "offload_", lambda group: state.rest(members(group)))
    return state


def made(backbone, name, picture=None, techniques=(), seed=5):
    """Latents and frames."""
    case, seen = CASES[name], []
    given = dict(prompt="a red ball rolls") if case.prompts else {}
    given |= dict(image=picture) if case.images else {}
    request = Request(**{"seed": seed, **given, **case.request, "num_inference_steps": 2})
    frames = sample(backbone, request, techniques, on_step=lambda step, x: seen.append(x))
    return seen[-1], frames


def offloaded(folder, how):
    backbone = load(folder, "cpu", "float32")
    memory.place(backbone, Placement(offload=how), HERE, REST)
    return backbone


@pytest.mark.parametrize(
    "name, how",
    [
        ("wan 2.1 i2v", "model"),
        ("wan 2.1 i2v", "group"),
        ("wan 2.2 t2v, two experts", "model"),
        ("hunyuan t2v", "group"),
        ("ltx 0.9.0 t2v", "model"),
        ("animatediff, joined, v", "group"),
    ],
)
def test_offload_changes_no_bit_and_leaves_nothing(name, how, folders, picture, resting):
    latents, frames = made(load(folders(name), "cpu", "float32"), name, picture)
    backbone = offloaded(folders(name), how)
    parts = memory.parts(backbone)
    shown, rows = repr(backbone.transformer if hasattr(backbone, "transformer") else backbone.unet), []

    def look(*_):
        rows.append({part: resting.share(network) for part, network in parts.items()})

    for network in parts.values():
        for layer in [m for m in network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv3d)][::8]:
            layer.register_forward_hook(look)
    for _ in range(2 if name == "wan 2.1 i2v" else 1):
        assert all(resting.share(network) == 1 for network in parts.values())
        found = made(backbone, name, picture)
        assert torch.equal(found[0], latents) and torch.equal(found[1], frames)
    assert all(resting.share(network) == 1 for network in parts.values())
    assert all(sum(share < 1 for share in row.values()) <= 1 for row in rows)  # at most one network is here
    here = [row[part] for row in rows for part in row if part in memory.NETWORKS and row[part] < 1]
    assert here and all((share == 0) == (how == "model") for share in here)  # all of it, or some of its blocks
    assert repr(backbone.transformer if hasattr(backbone, "transformer") else backbone.unet) == shown


def test_two_threads_take_turns(folders, resting):
    name, seeds = "wan 2.1 t2v", (1, 2)

    def both(backbone):
        with ThreadPoolExecutor(2) as pool:
            return [x for found in pool.map(lambda seed: made(backbone, name, seed=seed), seeds) for x in found]

    def alone(backbone):
        return [x for seed in seeds for x in made(backbone, name, seed=seed)]

    plain, cast = (load(folders(name), "cpu", "float32", layerwise_casting=on) for on in (False, True))
    expected = alone(plain)
    for how in ("model", "group"):
        assert all(map(torch.equal, both(offloaded(folders(name), how)), expected))
    assert all(map(torch.equal, both(cast), alone(cast)))


class Fails(Technique):
    name = "fails"

    def attend(self, step, site, q, k, v, positions, next):
        raise RuntimeError("in the middle of a block")


def test_techniques_act_and_errors_leave_nothing(folders, resting):
    name = "wan 2.1 t2v"
    expected = made(load(folders(name), "cpu", "float32"), name, techniques=[PAG()])[0]
    for how in ("model", "group"):
        backbone = offloaded(folders(name), how)
        assert torch.equal(made(backbone, name, techniques=[PAG()])[0], expected)
        with pytest.raises(RuntimeError, match="in the middle of a block"):
            made(backbone, name, techniques=[Fails()])
        if how == "group":
            assert resting.share(backbone.transformer) == 1
        assert torch.equal(made(backbone, name, techniques=[PAG()])[0], expected)


def switched(folder, kind, **more):
    chosen = {kind: True} if kind == "layerwise_casting" else {"quantization": kind}
    return load(folder, "cpu", "float32", **chosen, **more)


@pytest.mark.parametrize("name", ["wan 2.1 t2v", "animatediff, joined, v"])
def test_fewer_bits_change_the_result_by_what_is_stated(name, folders, picture):
    plain = load(folders(name), "cpu", "float32")
    latents, _ = made(plain, name, picture)
    part = "unet" if "animatediff" in name else "transformer"
    before = sum(memory.held(getattr(plain, part)).values())
    for kind in TYPES if part == "transformer" else ("layerwise_casting", "int4"):
        backbone, most = switched(folders(name), kind), TYPES[kind]
        found, _ = made(backbone, name, picture)
        assert 0 < (found - latents).norm() / latents.norm() < most
        if name == "wan 2.1 t2v":
            assert torch.equal(made(backbone, name)[0], found)  # a run leaves the model as it was
        assert sum(memory.held(getattr(backbone, part)).values()) < 0.75 * before


def test_text_encoders_are_quantized_when_asked(folders):
    name = "hunyuan t2v"
    plain = load(folders(name), "cpu", "float32")
    latents, _ = made(plain, name)
    backbone = load(folders(name), "cpu", "float32", text_quantization="int8")
    assert 0 < (made(backbone, name)[0] - latents).norm() / latents.norm() < 0.01
    for part in memory.TEXTS:
        weights = [sum(memory.held(memory.parts(b)[part]).values()) for b in (backbone, plain)]
        assert weights[0] < 0.95 * weights[1]
    assert memory.held(backbone.transformer) == memory.held(plain.transformer)


def test_lora_stands_beside_fewer_bits(folders, tmp_path):
    pytest.importorskip("peft")
    from backbones.test_lora import save

    name = "wan 2.1 t2v"
    file, _ = save(tmp_path / "lora", folders(name))
    exact = made(load(folders(name), "cpu", "float32", lora=file), name)[0]
    without = made(load(folders(name), "cpu", "float32"), name)[0]
    for kind in TYPES:
        backbone = switched(folders(name), kind, lora=file)
        found = made(backbone, name)[0]
        assert (found - exact).norm() < (without - exact).norm() / 4
        assert backbone.transformer.blocks[0].attn1.to_q.lora_A["lora0"].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "switches, says",
    [
        (dict(offload="model"), "device 'cpu' has one memory; use offload 'stream', or leave it out"),
        (dict(offload="group"), "device 'cpu' has one memory"),
        (dict(offload="disk"), "offload is 'disk'; use 'model', 'group' or 'stream'"),
        (dict(quantization="int2"), "quantization is 'int2'; use 'int8', 'int4' or 'float8'"),
        (dict(layerwise_casting="often"), "layerwise_casting is 'often'; use true or false"),
        (dict(quantization="int8", layerwise_casting=True), "both make the weights smaller; use one of them"),
        (dict(offload="stream", quantization="int8"), "leave quantization out"),
        (dict(offload="stream", layerwise_casting=True), "leave layerwise_casting out"),
    ],
)
def test_what_cannot_be_is_one_sentence(tiny_wan, switches, says):
    for call in (lambda: load(tiny_wan, "cpu", **switches), lambda: refused_by_request(tiny_wan, switches)):
        with pytest.raises(KinemaError) as error:
            call()
        assert says in str(error.value) and "\n" not in str(error.value)


def refused_by_request(model, switches):
    kinema.generate("a ball", model=model, device="cpu", num_frames=5, height=32, width=32, **switches)


def test_what_a_model_cannot_do_is_one_sentence(folders, monkeypatch):
    with pytest.raises(KinemaError, match="AutoencoderKLKinema, has no tiles; leave vae_tiling out"):
        load("mini", "cpu", vae_tiling=True)
    with pytest.raises(KinemaError, match="reads no words; leave text_quantization out"):
        load(folders("svd"), "cpu", text_quantization="int8")
    with pytest.raises(KinemaError, match="joined with its motion_adapter"):
        load(folders("animatediff"), "cpu", quantization="int8")
    with pytest.raises(KinemaError, match="offload 'group' cannot move weights in int4"):
        memory.check(Placement(offload="group", quantization="int4"), torch.device("cuda"))
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    with pytest.raises(KinemaError, match=r"needs torchao, which is not installed; run: pip install 'kinema\[quant"):
        load(folders("svd"), "cpu", quantization="int8")


def test_recipe_holds_the_switches_and_makes_the_video_again(tiny_wan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    size = ["--num-frames", "5", "--height", "32", "--width", "32", "--num-inference-steps", "2", "--seed", "7"]
    words = ["a red ball", "--model", str(tiny_wan), "--device", "cpu", *size]
    assert run(["generate", *words, "--quantization", "float8", "--vae-tiling", "--out", "a.mp4"]) == 0
    recipe = json.loads((tmp_path / "a.json").read_text())["kinema"]["request"]
    assert (recipe["quantization"], recipe["vae_tiling"], recipe["layerwise_casting"]) == ("float8", True, False)
    capsys.readouterr()
    assert run(["generate", "--from", "a.mp4", "--out", "b.mp4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["same_frames"] and not answer["differences"] and not answer["changed"]
    assert run(["generate", "--from", "a.mp4", "--no-vae-tiling", "--out", "c.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == ["vae_tiling"]


def test_a_loaded_model_keeps_its_placement(tiny_wan):
    size = dict(num_frames=5, height=32, width=32, num_inference_steps=2, seed=1)
    loaded = load(tiny_wan, "cpu", layerwise_casting=True, vae_tiling=True)
    assert loaded.vae.use_tiling and loaded.vae.use_slicing
    made = kinema.generate("a ball", model=loaded, **size).metadata["kinema"]["request"]
    assert made["layerwise_casting"] and made["vae_tiling"] and made["offload"] is None
    with pytest.raises(KinemaError, match="loaded already; give quantization to kinema.load"):
        kinema.generate("a ball", model=loaded, quantization="int8", **size)
    with pytest.raises(KinemaError, match="another placement than the loaded model has"):
        kinema.run_request(Request(prompt="a ball", quantization="int8", **size), backbone=loaded)


@pytest.mark.parametrize("name", ["wan 2.1 t2v", "hunyuan t2v"])
def test_plan_counts_the_weights_of_each_placement(name, folders):
    planned = planner(folders(name), "cpu", "bfloat16")
    for switches in (
        dict(layerwise_casting=True),
        dict(quantization="int8", text_quantization="float8"),
        dict(quantization="int4", text_quantization="int8"),
    ):
        parts = memory.parts(load(folders(name), "cpu", "bfloat16", **switches))
        held = sum(sum(memory.held(network).values()) for network in parts.values())
        assert set(fitting.on_device(planned.networks, Placement(**switches)).values()) == {held}


def test_plan_counts_what_offloading_leaves_on_the_device(folders, resting):
    name = "hunyuan t2v"
    networks = planner(folders(name), "cpu", "float32").networks
    for how in ("model", "group"):
        expected = fitting.on_device(networks, Placement(offload=how))
        backbone = offloaded(folders(name), how)
        most = {}
        for part, network in memory.parts(backbone).items():
            tensors = [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]

            def look(*_, part=part, tensors=tensors, most=most):
                here = sum(t.numel() * t.element_size() for t in tensors if id(t) not in resting.kept)
                most[part] = max(most.get(part, 0), here)

            for layer in network.modules():
                if isinstance(layer, torch.nn.Linear | torch.nn.Conv3d):
                    layer.register_forward_hook(look)
        made(backbone, name)
        for part, here in most.items():
            if how == "model":
                assert 0.95 * expected[part] <= here <= expected[part]  # buffers of whole numbers are left out here
            elif part in memory.NETWORKS:  # one group more is on its way on a GPU
                assert here < expected[part] < here + max(map(weigh, fitting.groups(part, networks[part]))) * 1.01


def weigh(network):
    return sum(t.numel() * t.element_size() for t in network.parameters())


def test_plan_counts_a_stream(folders):
    name = "wan 2.1 t2v"
    backbone = load(folders(name), "cpu", "float32", offload="stream")
    made(backbone, name)
    stream = backbone.folder.stream
    held = stream.kept + stream.most + sum(memory.held(backbone.vae).values())
    networks = planner(folders(name), "cpu", "float32").networks
    assert max(fitting.on_device(networks, Placement(offload="stream")).values()) == pytest.approx(held, rel=0.03)


def test_plan_names_the_switches_with_their_figures(tiny_wan, capsys, monkeypatch):
    size = ["--num-frames", "5", "--height", "64", "--width", "64", "--device", "cpu"]
    assert run(["plan", "--model", str(tiny_wan), *size, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = {row["switches"]: row for row in answer["placements"]}
    assert {"--offload stream", "--quantization int8", "--layerwise-casting"} <= found.keys()
    assert all(row["weights"] < answer["weights"] and row["fits"] for row in found.values())
    least = min(row["most"] for row in found.values())
    monkeypatch.setattr("kinema.cli.plan.free_memory", lambda device: least)
    assert run(["plan", "--model", str(tiny_wan), *size]) == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = [line.split("  ")[1].strip() for line in lines if line.startswith("fits")]
    assert chosen == [name for name, row in found.items() if row["most"] <= least]


def test_what_may_be_offered():
    def switches(*facts):
        return [fitting.Fit(placement, 0, 0).switches for placement in fitting.candidates(*facts)]

    gpu = switches(torch.device("cuda"), False, True, False)
    assert {"--offload model", "--offload group", "--offload stream"} <= {*gpu}
    assert "--offload model --quantization int8 --text-quantization int8" in gpu
    assert switches(torch.device("cpu"), True, True, True) == ["--layerwise-casting"]
    for text in gpu:  # all of them are understood
        given = dict(pair.split(" ") if " " in pair else (pair, True) for pair in text[2:].split(" --"))
        Placement(**{name.replace("-", "_"): value for name, value in given.items()})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "switches",
    [
        dict(offload="model"),
        dict(offload="group"),
        dict(offload="group", layerwise_casting=True),
        dict(offload="group", quantization="int8", text_quantization="int8"),
        dict(offload="model", quantization="int4", text_quantization="int4"),
    ],
)
@pytest.mark.parametrize("name", ["wan 2.1 i2v", "hunyuan t2v", "ltx 0.9.0 t2v", "animatediff, joined, v"])
def test_offload_on_a_gpu(name, switches, folders, picture):
    here = {key: value for key, value in switches.items() if key != "offload"}
    latents, frames = made(load(folders(name), "cuda", "float32", **here), name, picture)
    backbone = load(folders(name), "cuda", "float32", **switches)
    for _ in range(2):
        found = made(backbone, name, picture)
        assert torch.equal(found[0], latents) and torch.equal(found[1], frames)
        assert all("cuda" not in memory.held(network) for network in memory.parts(backbone).values())
