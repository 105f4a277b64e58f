"""LoRA files: put in through the public path, equal to weights merged by hand, written into the recipe."""

import json
import shutil

import pytest
import torch

import kinema
from backbones.families import cases
from kinema.backbones import lora as border
from kinema.backbones.load import load
from kinema.cli import run
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.request import Lora, Request, loras

peft = pytest.importorskip("peft")

CASES = cases()
NAMES = {
    "wan 2.1 t2v": "transformer",
    "cogvideox 5b, no guidance": "transformer",
    "hunyuan 1.5 t2v": "transformer",
    "animatediff, joined, v, alone": "unet",
    "wan 2.2 t2v, two experts": "transformer",
}
RANK = 3


def save(folder, model, part="transformer", seed=1, alpha=RANK, targets=("to_q", "to_v"), file=border.FILE, text=False):
    """A random LoRA of a model's part made with peft, in diffusers layout; gives the folder and the updates B A."""
    import diffusers

    backbone = load(model, "cpu", "float32")
    kind = getattr(diffusers, backbone.folder.pipeline)
    parts = {part: getattr(backbone, part)}
    if text:
        parts["text_encoder"] = backbone.text_encoder
    layers, updates, metadata = {}, {}, {}
    for name, network in parts.items():
        config = peft.LoraConfig(
            r=RANK, lora_alpha=alpha, target_modules=list(targets if name == part else ("q_proj", "v_proj"))
        )
        network = peft.inject_adapter_in_model(config, network)
        generator = torch.Generator().manual_seed(seed)
        layers[name] = {
            key: 0.5 * torch.randn(tensor.shape, generator=generator)
            for key, tensor in peft.get_peft_model_state_dict(network).items()
        }
        stem = {key.removesuffix(".lora_A.weight") for key in layers[name] if "lora_A" in key}
        both = {key: [layers[name][f"{key}.lora_{x}.weight"] for x in "BA"] for key in stem}
        updates[name] = {key: alpha / RANK * b @ a for key, (b, a) in both.items()}
        metadata[f"{name}_lora_adapter_metadata"] = config.to_dict()
    if not hasattr(kind, "save_lora_weights"):
        kind = diffusers.CogVideoXPipeline
    kind.save_lora_weights(
        folder, **{f"{name}_lora_layers": tensors for name, tensors in layers.items()}, weight_name=file, **metadata
    )
    return folder, updates


def merge(backbone, updates, weight, part="transformer"):
    """W + weight * B A."""
    for name, update in updates.items():
        getattr(backbone, part).get_submodule(name).weight.add_(weight * update)


def latents(name, backbone):
    words = dict(prompt="a red ball rolls") if CASES[name].prompts else {}
    found = []
    request = Request(**words, seed=5, guidance_scale=1, **CASES[name].request)
    sample(backbone, request, (), on_step=lambda step, x: found.append(x))
    return found[-1]


@pytest.mark.parametrize("name", NAMES)
def test_equals_weights_merged_by_hand(name, folders, tmp_path):
    model, part = folders(name), NAMES[name]
    first, update = save(tmp_path / "first", model, part)
    second, other = save(tmp_path / "second", model, part, seed=2, alpha=2 * RANK)
    plain = load(model, "cpu", "float32")
    without = latents(name, plain)
    assert torch.equal(latents(name, load(model, "cpu", "float32", lora=(first, 0))), without)

    backbone = load(model, "cpu", "float32", lora=[f"{first}:0.7", (str(second / border.FILE), -0.4)])
    assert [lora.weight for lora, _ in backbone.lora] == [0.7, -0.4]
    assert not any(p.requires_grad for p in getattr(backbone, part).parameters())
    got = latents(name, backbone)
    for network in {part, "transformer_2"} if getattr(plain, "transformer_2", None) is not None else {part}:
        merge(plain, update[part], 0.7, network)
        merge(plain, other[part], -0.4, network)
    torch.testing.assert_close(got, latents(name, plain), atol=1e-5, rtol=1e-5)
    assert (got - without).abs().max() > 1e-3


def test_text_encoder_of_animatediff(folders, tmp_path):
    name = "animatediff, joined, v, alone"
    file, updates = save(tmp_path / "both", folders(name), "unet", text=True)
    plain = load(folders(name), "cpu", "float32")
    before = plain.encode_texts(["a red ball"])["text"]
    got = load(folders(name), "cpu", "float32", lora=f"{file}:0.5")
    merge(plain, updates["unet"], 0.5, "unet")
    merge(plain, updates["text_encoder"], 0.5, "text_encoder")
    assert not torch.equal(plain.encode_texts(["a red ball"])["text"], before)
    torch.testing.assert_close(latents(name, got), latents(name, plain), atol=1e-5, rtol=1e-5)


def test_experts_are_told_apart(folders, tmp_path):
    name = "wan 2.2 t2v, two experts"
    file, update = save(tmp_path / "high", folders(name))
    for expert, part in (("high", "transformer"), ("low", "transformer_2")):
        plain = load(folders(name), "cpu", "float32")
        merge(plain, update["transformer"], 0.5, part)
        got = load(folders(name), "cpu", "float32", lora=f"{file}:0.5:{expert}")
        torch.testing.assert_close(latents(name, got), latents(name, plain), atol=1e-5, rtol=1e-5)


def test_keys_without_a_part_and_their_alpha(folders, tmp_path):
    """As the network itself saves its adapter: no "transformer." before the names."""
    model = folders("wan 2.1 t2v")
    backbone = load(model, "cpu", "float32")
    backbone.transformer.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["to_q"]), "own")
    for key, tensor in backbone.transformer.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(tensor, generator=torch.Generator().manual_seed(3))
    backbone.transformer.save_lora_adapter(tmp_path, adapter_name="own")
    got = load(model, "cpu", "float32", lora=tmp_path)
    torch.testing.assert_close(latents("wan 2.1 t2v", got), latents("wan 2.1 t2v", backbone), atol=1e-6, rtol=1e-6)


def test_techniques_reach_attention_behind_a_lora(folders, tmp_path):
    from kinema.guidance.pag import PAG

    file, update = save(tmp_path / "x", folders("wan 2.1 t2v"), targets=("to_q", "to_k", "to_v", "to_out.0"))
    results = []
    for given in (f"{file}:0.5", ()):
        backbone = load(folders("wan 2.1 t2v"), "cpu", "float32", lora=given)
        if not given:
            merge(backbone, update["transformer"], 0.5)
        request = Request(prompt="a red ball", seed=5, **CASES["wan 2.1 t2v"].request)
        seen = []
        sample(backbone, request, [PAG()], on_step=lambda step, x, seen=seen: seen.append(x))
        results.append(seen[-1])
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def test_recipe_holds_them_and_makes_the_video_again(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = folders("wan 2.1 t2v")
    save(tmp_path / "first", model)
    save(tmp_path / "second", model, seed=2)
    words = ["a red ball", "--model", str(model), "--lora", "first:0.7", "--lora", "second", "--seed", "7"]
    words += ["--num-frames", "5", "--height", "32", "--width", "32", "--num-inference-steps", "2"]
    assert run(["generate", *words, "--device", "cpu", "--out", "a.mp4"]) == 0
    recipe = json.loads((tmp_path / "a.json").read_text())["kinema"]
    assert [(one["path"], one["weight"]) for one in recipe["request"]["lora"]] == [("first", 0.7), ("second", 1.0)]
    assert len(recipe["weights"]["LoRA first"]) == 64
    capsys.readouterr()
    assert run(["generate", "--from", "a.mp4", "--out", "b.mp4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["same_frames"] and not answer["differences"]
    assert run(["generate", "--from", "a.mp4", "--lora", "first:0.1", "--out", "c.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] == ["lora"]
    save(tmp_path / "first", model, seed=9)
    assert run(["generate", "--from", "a.mp4", "--out", "d.mp4"]) == 0
    assert "the file LoRA first has changed" in capsys.readouterr().out


def test_a_loaded_model_has_its_own(folders, tmp_path):
    model = folders("wan 2.1 t2v")
    file, _ = save(tmp_path / "x", model)
    size = dict(num_frames=5, height=32, width=32, num_inference_steps=2, seed=1)
    loaded = load(model, "cpu", "float32", lora=file)
    video = kinema.generate("a ball", model=loaded, **size)
    assert video.metadata["kinema"]["request"]["lora"][0]["path"] == str(file)
    with pytest.raises(KinemaError, match="loaded already; give lora to kinema.load"):
        kinema.generate("a ball", model=loaded, lora=file, **size)
    with pytest.raises(KinemaError, match="other LoRA files"):
        kinema.run_request(Request(prompt="a ball", lora="y.safetensors", **size), backbone=loaded)


@pytest.mark.parametrize(
    "text, path, weight, expert",
    [
        ("a.safetensors", "a.safetensors", 1.0, None),
        ("a.safetensors:0.5", "a.safetensors", 0.5, None),
        ("a/b:-1e-1:low", "a/b", -0.1, "low"),
        ("a/b:high", "a/b", 1.0, "high"),
        ("C:/a.safetensors", "C:/a.safetensors", 1.0, None),
        ("runs:1/a.safetensors:2", "runs:1/a.safetensors", 2.0, None),
    ],
)
def test_what_is_written_on_the_command_line(text, path, weight, expert):
    assert Lora.parse(text) == Lora(path=path, weight=weight, expert=expert)


def test_one_or_several():
    one = Lora(path="a", weight=0.5)
    assert loras(one) == loras(("a", 0.5)) == loras("a:0.5") == loras([one]) == loras(({"path": "a", "weight": 0.5},))
    assert loras(["a", ("b", 2)]) == (Lora(path="a"), Lora(path="b", weight=2))
    assert loras(()) == loras(None) == ()


@pytest.mark.parametrize(
    "given, says",
    [
        ("none.safetensors", "there is no LoRA 'none.safetensors'"),
        ("none", "there is no LoRA 'none'"),
        ("weights.bin", "'weights.bin' is no safetensors file"),
        ("broken.safetensors", "LoRA 'broken.safetensors' cannot be read"),
        ("empty", "holds no safetensors file"),
        ("two", "holds a.safetensors, b.safetensors; name one file"),
        ("lora:strong", "the weight of LoRA 'lora' is 'strong'; use a number"),
        ("lora:nan", "finite"),
        ("lora:1000", "weight is 1000.0; use -100 to 100"),
        (("lora", "strong"), "use a number"),
        ("lora:1:low", "this model has one network"),
        ("foreign", "fit nothing in model"),
        ("wide", "it was made for another model"),
        ("dora", "is a DoRA"),
    ],
)
def test_errors_are_one_sentence(given, says, folders, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = folders("wan 2.1 t2v")
    save("lora", model)
    good = load_file(f"lora/{border.FILE}")
    first = next(key for key in good if "lora_A" in key)
    for name, tensors in {
        "foreign": {**good, "transformer.blocks.99.attn1.to_q.lora_A.weight": torch.zeros(3, 24)},
        "wide": {**good, first: torch.zeros(RANK, 99)},
        "dora": {**good, "transformer.blocks.0.attn1.to_q.dora_scale": torch.zeros(24)},
    }.items():
        (tmp_path / name).mkdir()
        save_file(tensors, f"{name}/{border.FILE}")
    (tmp_path / "weights.bin").write_bytes(b"pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"not at all")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in "ab":
        shutil.copy(f"lora/{border.FILE}", f"two/{name}.safetensors")
    with pytest.raises(KinemaError) as error:
        load(model, "cpu", "float32", lora=[given])
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_family_without_support_and_a_machine_without_peft(folders, tmp_path, monkeypatch):
    file, _ = save(tmp_path / "x", folders("wan 2.1 t2v"))
    with pytest.raises(KinemaError, match="a StableVideoDiffusionPipeline, which takes no LoRA"):
        load(folders("svd"), "cpu", "float32", lora=file)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(KinemaError, match=r"needs peft, which is not installed; run: pip install 'kinema\[lora\]'"):
        load(folders("wan 2.1 t2v"), "cpu", "float32", lora=file)
