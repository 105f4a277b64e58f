"""From a name to a model: what is refused, and with which sentence."""

import json
import shutil

import pytest
import torch

from kinema.backbones import load as loading
from kinema.backbones.load import load
from kinema.core.errors import KinemaError


@pytest.fixture
def copy(tiny_wan, tmp_path):
    return shutil.copytree(tiny_wan, tmp_path / "model")


def refuses(folder, says):
    with pytest.raises(KinemaError, match=says) as caught:
        load(folder, device="cpu")
    assert "\n" not in str(caught.value)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_loads_with_the_types_asked_for(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="bfloat16")
    assert (backbone.transformer.dtype, backbone.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert backbone.vae.dtype == torch.float32 and backbone.device == torch.device("cpu")
    assert not any(p.requires_grad for p in backbone.transformer.parameters()) and not backbone.transformer.training
    assert load(tiny_wan, device="cpu").dtype == torch.float32


def test_defaults_come_from_the_card(copy):
    assert load(copy, device="cpu").defaults.num_frames == 121
    (copy / "card.json").write_text(json.dumps({"defaults": {"num_frames": 25, "fps": 8, "height": 128, "width": 128}}))
    found = load(copy, device="cpu").defaults
    assert (found.num_frames, found.fps, found.height, found.guidance_scale) == (25, 8, 128, 5.0)


def test_names_the_nearest_model(monkeypatch):
    monkeypatch.setattr(loading, "embedded", lambda: {"mini": None})
    refuses("minni", "no model 'minni'.* did you mean 'mini'.* embedded models: mini")
    refuses("/nowhere/at/all", "no embedded model and no folder")


def test_hub_failures_are_one_sentence(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    refuses("Wan-AI/Wan2.2-TI2V-5B", "the hub cannot be reached.*did you mean 'Wan-AI/Wan2.2-TI2V-5B-Diffusers'")


def test_an_unknown_family_is_not_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(tmp_path / "model_index.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("fetched"))
    refuses("someone/else", "'someone/else' is a StableDiffusionPipeline.*it runs .*WanPipeline")


def test_fetches_only_the_parts_and_of_them_only_safetensors_and_texts(monkeypatch, tiny_wan):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = {}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **k: str(tiny_wan / "model_index.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: asked.update(k) or str(tiny_wan))
    assert load("owner/name", device="cpu").name == "owner/name"
    fetched = ("transformer/a.safetensors", "tokenizer/spiece.model", "scheduler/scheduler_config.json")
    others = ("all-in-one.safetensors", "transformer/a.bin", "other/a.safetensors", "run.py")
    kept = set(filter_repo_objects([*fetched, *others], allow_patterns=asked["allow_patterns"]))
    assert kept == set(fetched)


def test_refuses_damaged_folders(copy):
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refuses(copy, "transformer of model .* cannot be read")
    weights.rename(weights.with_suffix(".bin"))
    refuses(copy, "no weights in transformer/; kinema reads safetensors only")
    (copy / "transformer" / "config.json").write_text("{")
    refuses(copy, "transformer/config.json .* cannot be read")
    shutil.rmtree(copy / "scheduler")
    refuses(copy, "no scheduler/scheduler_config.json; it is not complete")
    (copy / "model_index.json").write_text("[]")
    refuses(copy, "holds no JSON object")
    (copy / "model_index.json").unlink()
    refuses(copy, "has no model_index.json")


def test_refuses_missing_weights(copy):
    from safetensors.torch import load_file, save_file

    path = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["proj_out.weight"]
    save_file(weights, path)
    refuses(copy, "has 1 missing weights, first proj_out.weight")


def test_refuses_foreign_parts(copy):
    edit(copy / "vae" / "config.json", _class_name="AutoencoderKL")
    refuses(copy, "vae of model .* is a AutoencoderKL; kinema knows AutoencoderKLKinema, AutoencoderKLWan")
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    refuses(copy, "not a flow scheduler")


@pytest.mark.parametrize(
    "options, says", [(dict(device="tpu9"), "device 'tpu9'"), (dict(dtype="int8"), "dtype is 'int8'")]
)
def test_refuses_devices_and_types_it_does_not_have(tiny_wan, options, says):
    with pytest.raises(KinemaError, match=says):
        load(tiny_wan, **options)
