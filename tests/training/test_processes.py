"""Several processes: two of them train as one does, whether each has all weights or a part of each."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinema.core.errors import KinemaError
from kinema.training.checkpoint import checkpoints
from kinema.training.processes import Processes, join
from kinema.training.progress import Progress, read_log
from kinema.training.trainer import Trainer, TrainerSettings
from training.two_trainers import BOTH, RUNS, Words

TOLERANCE = 1e-5  # of losses, relative; of weights, absolute, which are about 0.4


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two processes have trained everything."""
    folder = tmp_path_factory.mktemp("together")
    script = Path(__file__).parent / "two_trainers.py"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, folder]
    alike = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(start, capture_output=True, text=True, timeout=600, env=alike)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The trainers of the same runs by one process."""
    folder, trainers = tmp_path_factory.mktemp("alone"), {}
    for name, changes in RUNS.items():
        settings = TrainerSettings(**BOTH | changes)
        trainers[name] = Trainer(Words(), settings, folder / name, progress=Progress(io.StringIO()))
        trainers[name].run()
    return trainers


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one_does(name, together, alone):
    theirs = read_log(together / name / "log.jsonl")
    ours = read_log(alone[name].folder / "log.jsonl")
    assert len(theirs) == len(ours) == 4
    for a, b in zip(theirs, ours, strict=True):
        print(name, a["step"], abs(a["loss"] / b["loss"] - 1))
        assert a["loss"] == pytest.approx(b["loss"], rel=TOLERANCE)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=TOLERANCE)
        assert (a["names"], b["names"]) == (2, 4)  # each had half of every micro-batch
    for file in ("net", "net.ema", "optimizer"):
        of_two, of_one = (
            load_file(checkpoints(folder / "checkpoints")[-1] / f"{file}.safetensors")
            for folder in (together / name, alone[name].folder)
        )
        assert of_two.keys() == of_one.keys()
        for key, value in of_two.items():
            torch.testing.assert_close(value, of_one[key], rtol=0, atol=TOLERANCE)


def test_evaluation_sees_the_averaged_weights(together, alone):
    rows = [read_log(f / "evaluation.jsonl") for f in (together / "fsdp", alone["fsdp"].folder)]
    assert [row["step"] for row in rows[0]] == [3, 4] == [row["step"] for row in rows[1]]
    assert [row["norm"] for row in rows[0]] == pytest.approx([row["norm"] for row in rows[1]], rel=TOLERANCE)


def test_one_process_goes_on_where_two_stopped(together, alone):
    told = [json.loads((together / f"told.{rank}.json").read_text()) for rank in range(2)]
    assert all(t["interrupted"] and t["step"] == 2 for t in told) and told[0]["loss"] == told[1]["loss"]
    exported = load_file(together / "out.safetensors")
    averaged = load_file(checkpoints(together / "broken" / "checkpoints")[-1] / "net.ema.safetensors")
    assert all(torch.equal(exported[key], value) for key, value in averaged.items())
    settings = TrainerSettings(**BOTH | RUNS["fsdp"])
    trainer = Trainer(Words(), settings, together / "broken", progress=Progress(io.StringIO()))
    assert not trainer.run().interrupted
    resumed, whole = (read_log(f / "log.jsonl") for f in (together / "broken", alone["fsdp"].folder))
    assert [r["loss"] for r in resumed] == pytest.approx([r["loss"] for r in whole], rel=TOLERANCE)


def test_what_the_processes_tell(together):
    told = [json.loads((together / f"told.{rank}.json").read_text()) for rank in range(2)]
    assert [t["after the first"] for t in told] == [False, True]
    assert all("cannot share a micro-batch of 3 clips evenly; use a multiple of 2" in t["odd"] for t in told)
    assert not (together / "odd.1").exists()  # the first alone writes


def test_shares_are_a_batch():
    """The clips of all shares are those of the batch, each once; what is no list and has no axes is everyone's."""
    device = torch.device("cpu")
    batch = {"x": torch.arange(6), "names": list("abcdef"), "size": (4, 4), "share": torch.tensor(0.5), "step": 3}
    parts = [Processes(rank, 3, device).share(batch) for rank in range(3)]
    assert [p["x"].tolist() for p in parts] == [[0, 3], [1, 4], [2, 5]]
    assert [p["names"] for p in parts] == [["a", "d"], ["b", "e"], ["c", "f"]]
    assert all((p["size"], p["share"], p["step"]) == ((4, 4), 0.5, 3) for p in parts)
    assert Processes(0, 1, device).share(batch) == batch
    with pytest.raises(KinemaError, match="micro-batch of 5 and 6 clips"):
        Processes(0, 3, device).share({"x": torch.arange(6), "y": [1] * 5})


def test_one_process_meets_nobody_and_a_gpu_of_its_own_is_refused(monkeypatch):
    assert join("cpu") == Processes(0, 1, torch.device("cpu"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(KinemaError, match="'cuda:1', and every process takes one of its own; use cuda or cpu"):
        join("cuda:1")
