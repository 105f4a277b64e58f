"""Adapters on several families: they begin as nothing, leave nothing, and what is saved is what was."""

import dataclasses
import json
from shutil import copytree, ignore_patterns
from types import SimpleNamespace

import pytest
import torch

import adapters
import asked
from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.adapter import CONFIG, FOLDER, WEIGHTS, ModelFace, read_adapter, write_adapter
from kinema.core.errors import KinemaError
from kinema.core.features import Inside
from kinema.core.loop import denoise
from kinema.core.technique import Step
from kinema.core.windows import Window
from kinema.guidance.apg import APG
from kinema.guidance.cfg import CFG
from kinema.guidance.multi_cfg import MultiCFG, joined
from kinema.pipeline import _guided
from kinema.request import Request

STEP = Step(index=0, count=1, t=0.5, t_next=0.0)
FAMILIES = ("kinema_mini", "cogvideox 2b", "animatediff")
NAMES = sorted(adapters.KINDS)


@pytest.fixture(scope="module")
def model(tiny_folder, tmp_path_factory):
    """model(family): a small model, loaded once, and what it is asked for."""
    known = {}

    def built(family):
        if family not in known:
            case = cases().get(family)
            folder = tmp_path_factory.mktemp("model")
            if case is None:  # other tests may have put adapters beside theirs
                copytree(tiny_folder(family), folder, ignore=ignore_patterns(FOLDER), dirs_exist_ok=True)
            folder = folder if case is None else case.build(folder)
            size = dict(num_frames=9, height=32, width=32, num_inference_steps=2) if case is None else case.request
            backbone = load(folder, device="cpu", dtype="float32")
            known[family] = backbone, {**size, "num_inference_steps": 2}
        return known[family]

    return built


def made(backbone, size, *parts, prompt=asked.EVENTS):
    requests = [Request(prompt=prompt, **size, seed=seed) for seed in (3, 4)]
    return denoise(backbone, requests, [*parts, CFG(scale=3.0)])[0]


def adapter(name, backbone, folder, fresh=False, **more):
    """An adapter of the technique `name` with weights of its own for this model."""
    cls = adapters.KINDS[name]
    folder.mkdir(parents=True)
    write_adapter(folder, name, *adapters.network(cls, backbone, fresh=fresh), card={}, dtype=torch.float32)
    return cls(**{**asked.options(name), "adapter": str(folder), **more})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_nothing_acts_once_trained_and_leaves_nothing(name, family, model, tmp_path):
    backbone, size = model(family)
    plain = made(backbone, size)
    assert torch.equal(made(backbone, size, adapter(name, backbone, tmp_path / "fresh", fresh=True)), plain)
    trained = adapter(name, backbone, tmp_path / "trained", noise_range=(1.0, 0.0))
    assert torch.equal(made(backbone, size, dataclasses.replace(trained, weight=0.0)), plain)
    assert not torch.equal(made(backbone, size, trained), plain)
    assert torch.equal(made(backbone, size), plain)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_was(name, model, tmp_path):
    backbone, _ = model("kinema_mini")
    first = adapter(name, backbone, tmp_path / "first")
    network = read_adapter(first, backbone)
    sizes = json.loads((tmp_path / "first" / CONFIG).read_text())["network"]
    (tmp_path / "second").mkdir()
    write_adapter(tmp_path / "second", name, network, sizes, card={}, dtype=torch.float32)
    assert (tmp_path / "first" / WEIGHTS).read_bytes() == (tmp_path / "second" / WEIGHTS).read_bytes()
    again = read_adapter(dataclasses.replace(first, adapter=str(tmp_path / "second")), backbone)
    assert all(torch.equal(u, again.state_dict()[key]) for key, u in network.state_dict().items())


def test_a_branch_without_its_condition_is_the_plain_model(model, tmp_path):
    """At a weight of guidance of 0 the condition is cut out of what is guided with."""
    backbone, size = model("kinema_mini")
    part = adapter("vd3d", backbone, tmp_path / "vd3d")
    request = Request(prompt="a red ball rolls", **size, seed=3)
    without = denoise(backbone, request, [part, MultiCFG(scale=1.0, weights=("camera:0",))])[0]
    plain = denoise(backbone, request, [])[0]
    torch.testing.assert_close(without, plain, rtol=0, atol=1e-5)


def test_a_condition_follows_the_rows_and_the_window_of_a_call():
    inside = Inside(torch.zeros(4, 2, 3, 1, 1), 0.5, [frozenset(), frozenset({"camera"})], Window(2, 5))
    assert inside.keeps("camera").tolist() == [True, True, False, False] and inside.keeps("text").all()
    u = torch.arange(14.0).reshape(2, 7)
    assert inside.of(u, dim=1).tolist() == [[2, 3, 4], [9, 10, 11], [2, 3, 4], [9, 10, 11]]
    assert inside.levels.shape == (4, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"adapter": "nowhere"}, "there is no adapter in nowhere"),
        ({"adapter": None}, "comes with no adapter 'ac3d'; train one with `kinema train adapter ac3d"),
        ({"weight": float("nan")}, "weight of ac3d is nan"),
        ({"camera": "sideways"}, "there is no camera move 'sideways'"),
        ({"block_range": (0, 99)}, "use blocks from 0 to"),
    ],
)
def test_what_cannot_be_is_refused(change, said, model, tmp_path):
    backbone, size = model("kinema_mini")
    part = dataclasses.replace(adapter("ac3d", backbone, tmp_path / "ac3d"), **change)
    with pytest.raises(KinemaError, match=said):
        made(backbone, size, part)


def test_an_adapter_of_another_model_or_name_or_a_damaged_one_is_refused(model, tmp_path):
    backbone, size = model("kinema_mini")
    other, _ = model("cogvideox 2b")
    foreign = adapter("ac3d", other, tmp_path / "foreign")
    with pytest.raises(KinemaError, match="made for another kind of model"):
        made(backbone, size, foreign)
    mine = adapter("ac3d", backbone, tmp_path / "mine")
    with pytest.raises(KinemaError, match="holds an adapter 'ac3d', and 'vd3d' is asked for"):
        made(backbone, size, adapters.KINDS["vd3d"](adapter=mine.adapter))
    (tmp_path / "mine" / WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(KinemaError, match="is damaged"):
        made(backbone, size, mine)
    with pytest.raises(KinemaError, match="both bring the condition 'camera'"):
        made(backbone, size, mine, adapter("vd3d", backbone, tmp_path / "vd3d"))


def test_guidance_is_a_list_of_weighted_differences():
    """v = u + s (c - u) + (w - 1) (c - without) + (w_time - 1) (1 - t) (u - without time)."""
    c, u, camera, time = (torch.full((1, 1, 1, 1, 1), n) for n in (5.0, 1.0, 2.0, 0.5))
    guide = MultiCFG(scale=3.0, weights=("camera:1.5", "time:2"))
    assert guide.dropped()["no_time"] == {"text", "time"} and guide.dropped()["no_camera"] == {"camera"}
    v = guide.guide(STEP, cond=c, uncond=u, no_camera=camera, no_time=time)
    assert v.item() == 1 + 3 * (5 - 1) + 0.5 * (5 - 2) + 1 * 0.5 * (1 - 0.5)
    assert MultiCFG(scale=1.0, weights=("camera:1",)).needs(STEP) == ["cond"]
    assert MultiCFG(scale=1.0, weights=("time:2",)).needs(STEP) == ["cond", "uncond", "no_time"]
    assert MultiCFG(scale=1.0, weights=("time:2",)).needs(dataclasses.replace(STEP, t=1.0)) == ["cond"]
    assert joined([CFG(scale=4.0)], {}) == [CFG(scale=4.0)]
    assert joined([CFG(scale=4.0)], {"camera": 1.5}) == [MultiCFG(scale=4.0, weights=("camera:1.5",))]


def test_what_is_joint_with_the_text_is_left_out_with_it():
    """v = u + (s + w - 1) (c - u), where u has neither; without guidance of the text it stands apart."""
    c, u, time = (torch.full((1, 1, 1, 1, 1), n) for n in (5.0, 1.0, 0.5))
    guide = MultiCFG(scale=3.0, weights=("camera:2", "time:2"), joint=("camera",))
    assert guide.dropped()["uncond"] == {"text", "camera"} and guide.dropped()["no_time"] == {"text", "camera", "time"}
    assert guide.needs(STEP) == ["cond", "uncond", "no_time"]
    assert guide.guide(STEP, cond=c, uncond=u, no_time=time).item() == 1 + 4 * (5 - 1) + 1 * 0.5 * (1 - 0.5)
    quiet = MultiCFG(scale=1.0, weights=("camera:1",), joint=("camera",))
    assert quiet.needs(STEP) == ["cond"] and set(quiet.dropped()) == {"cond"}
    assert joined([CFG(scale=4.0)], {}, ["camera"]) == [MultiCFG(scale=4.0, joint=("camera",))]
    assert joined([], {"camera": 2.0}, ["camera"]) == [MultiCFG(scale=1.0, weights=("camera:2.0",))]
    assert joined([], {}, ["camera"]) == [] and joined([APG()], {}, ["camera"]) == [APG()]
    with pytest.raises(KinemaError, match="takes no weight of camera; set guidance=1"):
        joined([APG()], {"camera": 2.0}, ["camera"])


def test_the_text_may_weigh_less_than_what_is_joint_with_it():
    """v = c + (s - 1) ((e - u) + share (c - e)), where e has no text; where nothing joint acts the text weighs 1."""
    c, u, e = (torch.full((1, 1, 1, 1, 1), n) for n in (5.0, 1.0, 2.0))
    guide = MultiCFG(scale=3.0, weights=("events:2",), joint=("events:0.25",))
    assert guide.dropped()["no_text"] == {"text"} and guide.needs(STEP) == ["cond", "uncond", "no_text"]
    assert guide.guide(STEP, cond=c, uncond=u, no_text=e).item() == 5 + 3 * ((2 - 1) + 0.25 * (5 - 2))
    assert joined([CFG(scale=4.0)], {}, ["events:0.5"]) == [MultiCFG(scale=4.0, joint=("events:0.5",))]
    assert joined([], {}, ["events:0.5"]) == []
    assert "no_text" not in MultiCFG(scale=1.0, joint=("events:0",)).dropped()


@pytest.mark.parametrize(
    ("acting", "share"), [((), 1.0), (("camera",), 1.0), (("events",), 0.0), (("events", "camera"), 0.0)]
)
def test_the_text_weighs_less_only_while_what_wants_that_acts(acting, share):
    told = [SimpleNamespace(provides={n}, active=lambda step, n=n: n in acting) for n in ("events", "camera")]
    run = SimpleNamespace(techniques=told, backbone=SimpleNamespace(expert_boundary=None))
    guide, now = MultiCFG(scale=3.0, joint=("events:0", "camera")), dataclasses.replace(STEP, run=run)
    assert guide._share(now) == share and ("no_text" in guide.needs(now)) == (share != 1)
    told[0].weight = 0.0  # then there is nothing of it
    assert guide._share(now) == 1.0


def test_beside_a_share_of_the_text_a_negative_prompt_is_led_away_from(model, tmp_path, monkeypatch):
    """It is read by u and not by e, so that e - u has it, too."""
    backbone, size = model("kinema_mini")
    part = adapter("mint", backbone, tmp_path / "mint")
    request = Request(prompt=asked.EVENTS, **size, seed=3)
    guide = _guided(request, [part], backbone)[-1]
    assert guide == MultiCFG(scale=backbone.defaults.guidance_scale, joint=("events:0.25",))
    seen, plain = [], MultiCFG.guide
    monkeypatch.setattr(MultiCFG, "guide", lambda self, step, **b: seen.append(b) or plain(self, step, **b))
    for no in ("", "snow"):
        denoise(backbone, request.changed(negative_prompt=no, num_inference_steps=1), [part, guide])
    for branch in ("cond", "no_text"):
        torch.testing.assert_close(seen[0][branch], seen[1][branch], atol=1e-5, rtol=0)
    assert (seen[0]["uncond"] - seen[1]["uncond"]).abs().max() > 1e-3


def test_a_share_of_an_adapter_that_cannot_be_is_refused(model, tmp_path):
    backbone, size = model("kinema_mini")
    with pytest.raises(KinemaError, match="text_share of mint is -1; use 0 or more"):
        made(backbone, size, dataclasses.replace(adapter("mint", backbone, tmp_path / "mint"), text_share=-1.0))
    with pytest.raises(KinemaError, match="text_share of ac3d is -1; use 0 or more"):  # ahead of multi_cfg's own words
        _guided(Request(prompt="a", **size), [adapters.KINDS["ac3d"](text_share=-1.0)], backbone)


def test_without_what_is_joint_the_model_is_plain(model, tmp_path):
    backbone, size = model("kinema_mini")
    request = Request(prompt="a red ball rolls", **size, seed=3)
    part = adapter("vd3d", backbone, tmp_path / "vd3d")
    neither = denoise(backbone, request, [part, MultiCFG(scale=0.0, joint=("camera",))])[0]
    plain = denoise(backbone, request, [CFG(scale=0.0)])[0]
    torch.testing.assert_close(neither, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "weights", "joint"),
    [
        ({}, (), ("camera",)),
        ({"guidance": 2.0}, ("camera:2.0",), ("camera",)),
        ({"guidance": 0.0}, ("camera:0.0",), ()),
        ({"joint": False, "guidance": 4.5}, ("camera:4.5",), ()),
    ],
)
def test_the_path_is_guided_with_the_text_unless_told_otherwise(change, weights, joint, model, tmp_path):
    backbone, size = model("kinema_mini")
    part = dataclasses.replace(adapter("ac3d", backbone, tmp_path / "ac3d"), **change)
    guide = _guided(Request(prompt="a red ball rolls", **size), [part], backbone)[-1]
    assert guide == MultiCFG(scale=backbone.defaults.guidance_scale, weights=weights, joint=joint)
    (plain,) = _guided(Request(prompt="a", **size), [dataclasses.replace(part, weight=0.0)], backbone)[1:]
    assert type(plain) is CFG


@pytest.mark.parametrize(
    "joint", [("text",), ("time",), ("camera", "camera"), ("camera:-1",), ("camera:nan",), ("camera:x",), (":1",)]
)
def test_what_cannot_be_joint_is_refused(joint, model, tmp_path):
    backbone, size = model("kinema_mini")
    part = adapter("ac3d", backbone, tmp_path / "ac3d")
    with pytest.raises(KinemaError, match="in joint of multi_cfg is no condition"):
        denoise(backbone, Request(prompt="a", **size), [part, MultiCFG(joint=joint)])


@pytest.mark.parametrize("weights", [("camera",), ("camera:x",), ("text:2",), ("camera:1", "camera:2")])
def test_weights_that_cannot_be_read_are_refused(weights):
    with pytest.raises(KinemaError, match="is no condition:weight"):
        MultiCFG(weights=weights).dropped()


def test_without_time_each_latent_frame_is_asked_alone(model):
    backbone, size = model("kinema_mini")
    request = Request(prompt="a red ball rolls", **size, seed=3)
    latents = []
    denoise(
        backbone, request, [MultiCFG(scale=1.0, weights=("time:0",))], on_step=lambda step, x: latents.append(x.clone())
    )
    still = denoise(backbone, request, [MultiCFG(scale=1.0, weights=("time:1",))])[0]
    assert not torch.equal(latents[-1], still) and ModelFace.of(backbone).widths
