"""`kinema doctor` measures, and says what `load` takes and why."""

import json
from contextlib import nullcontext

import pytest
import torch

from kinema.backbones.load import pick_device, pick_dtype
from kinema.cli import run, speeds


def test_says_what_load_takes(tiny_wan, capsys, monkeypatch):
    monkeypatch.setattr(speeds, "SIZES", {**speeds.SIZES, "cpu": 64})
    monkeypatch.setattr(speeds, "SECONDS", 0.01)
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    where = pick_device(None)
    assert (found["default"]["device"], f"torch.{found['default']['dtype']}") == (
        where.type,
        str(pick_dtype(None, where)),
    )
    assert found["speeds"].keys() == {device["name"] for device in found["devices"]}
    assert {"float32", "bfloat16"} <= found["speeds"]["cpu"].keys()
    assert all(speed > 0 for row in found["speeds"].values() for speed in row.values())
    assert run(["doctor"]) == 0
    assert found["default"]["why"].split(";")[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    "row, says",
    [
        (dict(float32=100.0, bfloat16=450.0, float16=2.0), "bfloat16 multiplies 4.5 times as fast here"),
        (dict(float32=100.0, float16=300.0), "float16, whose large numbers may overflow"),
        (dict(float32=100.0, bfloat16=110.0), "no type is much faster here"),
    ],
)
def test_reads_the_measurement(row, says, monkeypatch):
    monkeypatch.setattr("kinema.backbones.load.pick_device", lambda device: torch.device("cpu"))
    assert says in speeds.choice({"cpu": row})["why"]


@pytest.mark.parametrize("native, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_the_rule_for_gpus(native, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert pick_dtype(None, torch.device("cuda")) == dtype
    assert pick_dtype(None, torch.device("cpu")) == pick_dtype(None, torch.device("mps")) == torch.float32
    assert pick_dtype("float16", torch.device("cuda")) == torch.float16
