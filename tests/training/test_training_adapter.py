"""Training adapters: on any model, resumed as if unbroken, from the world or own clips, leaving the model as it is."""

import json
from dataclasses import replace
from shutil import copytree, ignore_patterns

import pytest
import torch
from safetensors.torch import load_file

import adapters
import real_videos
from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.adapter import CARD, WEIGHTS, write_adapter
from kinema.core.errors import KinemaError
from kinema.training.adapter import AdapterSettings, AdapterStage, ControlLearning, fresh, kind, train_adapter
from kinema.training.controlled import ControlledSettings
from kinema.training.recipe import RECIPES, load_section
from kinema.training.trainer import TrainerSettings
from test_contract import fingerprint

FAMILIES = ("kinema_mini", "cogvideox 2b", "animatediff")
SMALL = {"num_frames": 9, "height": 32, "width": 32, "fps": 8}


def plain(folder, place):
    """A copy of a model without the adapters that other tests may have put beside it."""
    return copytree(folder, place, ignore=ignore_patterns("adapters"))


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """folder(family): a small model that makes clips of 9 frames of 32x32."""
    known = {}

    def built(family):
        if family not in known:
            place = tmp_path_factory.mktemp("model") / "model"
            case = cases().get(family)
            made = case.build(place.parent) if case is not None else plain(tiny_folder(family), place)
            size = {**SMALL, **{k: v for k, v in (case.request if case else {}).items() if k in ("height", "width")}}
            (made / "card.json").write_text(json.dumps({"defaults": size}))
            known[family] = made
        return known[family]

    return built


def settings(name, model, steps=3, **more):
    trainer = TrainerSettings(
        steps=steps,
        batch_size=2,
        lr=0.01,
        warmup_steps=1,
        schedule="constant",
        ema=0.0,
        precision="fp32",
        sheet_seconds=1e9,
    )
    clips = ControlledSettings(curriculum="first", clips=4, clips_per_shard=4, encode_batch=4)
    return AdapterSettings(name=name, trainer=trainer, model=str(model), **{"clips": clips, **more})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", sorted(adapters.KINDS))
def test_any_model_takes_any_adapter(name, family, folder, tmp_path):
    model = folder(family)
    before = {path: path.read_bytes() for path in sorted(model.rglob("*.safetensors"))}
    report = train_adapter(settings(name, model), tmp_path / "run", "cpu", say=lambda text: None)
    assert report.step == 3 and not report.interrupted
    written = load_file(tmp_path / "run" / name / WEIGHTS)
    begun, _ = adapters.network(kind(name), load(model, device="cpu", dtype="float32"), fresh=True)
    moved = [key for key, u in begun.state_dict().items() if not u.any() and written[key].any()]
    assert moved, f"what begins as nothing in {name} has not learned anything"
    assert {path: path.read_bytes() for path in sorted(model.rglob("*.safetensors"))} == before
    assert json.loads((tmp_path / "run" / name / CARD).read_text())["training"]["steps"] == 3


def test_resumed_is_unbroken(folder, tmp_path):
    model = folder("kinema_mini")
    train_adapter(settings("ac3d", model, steps=4), tmp_path / "whole", "cpu", say=lambda text: None)
    train_adapter(settings("ac3d", model, steps=2), tmp_path / "broken", "cpu", say=lambda text: None)
    train_adapter(settings("ac3d", model, steps=4), tmp_path / "broken", "cpu", say=lambda text: None)
    whole, broken = (load_file(tmp_path / run / "ac3d" / WEIGHTS) for run in ("whole", "broken"))
    rows = [(tmp_path / run / "adapter" / "log.jsonl").read_text().splitlines() for run in ("whole", "broken")]
    assert [json.loads(row)["step"] for row in rows[1]] == [0, 1, 2, 3]
    assert all(torch.equal(u, broken[key]) for key, u in whole.items())


def test_a_training_goes_on_from_an_adapter_that_is_there(folder, tmp_path):
    model = plain(folder("kinema_mini"), tmp_path / "plain")
    begun = replace(settings("vd3d", model), start_from=str(tmp_path / "vd3d"))
    backbone = load(model, device="cpu", dtype="float32")
    network, sizes = adapters.network(kind("vd3d"), backbone)
    (tmp_path / "vd3d").mkdir()
    write_adapter(tmp_path / "vd3d", "vd3d", network, sizes, card={}, dtype=torch.float32)
    found, _ = fresh(begun, backbone)
    assert all(torch.equal(u, found.state_dict()[key]) for key, u in network.state_dict().items())
    assert all(p.requires_grad for p in found.parameters())
    with pytest.raises(ValueError, match="other sizes"):
        fresh(replace(begun, network={"width": 64}), backbone)
    with pytest.raises(KinemaError, match="comes with no adapter 'vd3d'"):
        fresh(replace(begun, start_from="own"), backbone)


def test_the_model_is_left_as_it_is(folder, tmp_path):
    backbone = load(folder("kinema_mini"), device="cpu", dtype="float32")
    before = fingerprint(backbone)
    told = settings("gen1", folder("kinema_mini"))
    with AdapterStage(told, backbone, *fresh(told, backbone), None):
        assert fingerprint(backbone) != before  # opened
    assert fingerprint(backbone) == before


def test_own_clips(folder, tmp_path):
    """Real videos, whose structure kinema sees itself; another folder of clips does not meet what is there."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.mp4").write_bytes(real_videos.path("bigbuckbunny.mp4").read_bytes())
    (data / "a.txt").write_text("a red ball rolls")
    model, run = folder("kinema_mini"), tmp_path / "run"
    train_adapter(settings("gen1", model), run, "cpu", data, say=lambda text: None)
    (data / "a.txt").write_text("the blue cube jumps")
    with pytest.raises(ValueError, match="made with another data"):
        train_adapter(settings("gen1", model), run, "cpu", data, say=lambda text: None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "cfg"}, "cfg is not trained; adapters are ac3d"),
        ({"network": {"depth": 3}}, "network of adapter 'ac3d'"),
        ({"network": {"blocks": [40]}}, "blocks of an adapter are"),
        ({"learning": ControlLearning(given_share=1.0), "model": "cogvideox 2b"}, "one time for the whole clip"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, said, folder, tmp_path):
    model = folder(change.pop("model", "kinema_mini"))
    with pytest.raises((KinemaError, ValueError), match=said):
        train_adapter(settings(change.pop("name", "ac3d"), model, **change), tmp_path, "cpu", say=lambda text: None)


@pytest.mark.parametrize("name", sorted(adapters.KINDS))
def test_every_adapter_has_a_recipe(name):
    assert (RECIPES / f"adapter-{name}.yaml").is_file()
    assert load_section(f"adapter-{name}", "adapter", AdapterSettings).name == name
