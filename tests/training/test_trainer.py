"""The trainer: exact resume, checkpoints that survive a kill, the weight average, what it prints."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kinema.training.checkpoint import checkpoints
from kinema.training.ema import EMA
from kinema.training.progress import Log, Progress, draw_curve, duration, read_log
from kinema.training.trainer import Trainer, TrainerSettings, seeded


class Regression:
    """A tiny stage: y = sin(sum x), with noise on the input; counts the sheets it is asked for."""

    def __init__(self, stop_at: int | None = None) -> None:
        g = torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
        self.modules = {"net": self.net}
        self.stop_at, self.sheets = stop_at, 0

    def batch(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(8, 4, generator=generator)
        return {"x": x, "y": x.sum(1, keepdim=True).sin()}

    def loss(self, batch, generator):
        x = batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator)
        loss = (self.net(x).float() - batch["y"]).square().mean()
        return loss, {"rmse": loss.sqrt()}

    def sheet(self, path: Path) -> None:
        self.sheets += 1


def settings(**changes) -> TrainerSettings:
    plain = dict(steps=60, batch_size=8, lr=1e-2, warmup_steps=5, precision="fp32", ema=0.9, seed=3)
    return TrainerSettings(**{**plain, **changes})


def train(folder: Path, stop_at: int | None = None, **changes):
    trainer = Trainer(Regression(stop_at), settings(**changes), folder, progress=Progress(io.StringIO()))
    return trainer, trainer.run()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"prefetch": True}, {"precision": "bf16"}], ids=str)
def test_resumed_run_is_the_unbroken_run(tmp_path, changes):
    whole, report = train(tmp_path / "whole", **changes)
    _, stopped = train(tmp_path / "broken", stop_at=23, **changes)
    second, resumed = train(tmp_path / "broken", **changes)
    assert stopped.interrupted and 0 < stopped.step < 60 and not resumed.interrupted
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 60
    for a, b in zip(whole.stage.net.parameters(), second.stage.net.parameters(), strict=True):
        assert torch.equal(a, b)
    for key, value in whole.ema.shadow["net"].items():
        assert torch.equal(value, second.ema.shadow["net"][key])
    assert report.clips == resumed.clips == 60 * 8 * changes.get("accumulate", 1)


def test_signal_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(tmp_path, stop_at=3)
    assert signal.getsignal(signal.SIGTERM) is before


def test_kill_leaves_a_whole_checkpoint_and_resumes_exactly(tmp_path):
    """kill -9 in a process that writes a checkpoint each step, so that it is often hit while writing one."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_trainer as t;"
        "t.train(Path(sys.argv[2]), steps=2000, checkpoint_seconds=0.0)"
    )
    folder = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(folder)])
    deadline = time.monotonic() + 60
    while not (checkpoints(folder / "checkpoints") and checkpoints(folder / "checkpoints")[-1].name > "step-00000020"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    at = int(checkpoints(folder / "checkpoints")[-1].name[5:])
    assert 20 < at < 2000
    # Both go on with the learning rate of 2000 steps, and are stopped at the same place.
    train(folder, stop_at=at + 20, steps=2000)
    train(tmp_path / "whole", stop_at=at + 20, steps=2000)
    assert losses(folder) == losses(tmp_path / "whole")
    assert not list((folder / "checkpoints").glob(".writing-*"))


def test_checkpoint_files(tmp_path):
    trainer, _ = train(tmp_path, checkpoint_seconds=0.0, steps=8)
    found = checkpoints(tmp_path / "checkpoints")
    assert [p.name for p in found] == ["step-00000007", "step-00000008"]  # the newest two
    assert {p.name for p in found[-1].iterdir()} == {
        "net.safetensors",
        "net.ema.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    averaged = load_file(found[-1] / "net.ema.safetensors")
    assert torch.equal(averaged["0.weight"], trainer.ema.shadow["net"]["0.weight"])
    assert torch.equal(load_file(found[-1] / "net.safetensors")["0.weight"], trainer.stage.net[0].weight)
    state = json.loads((found[-1] / "state.json").read_text())
    assert state["step"] == 8 and state["settings"]["lr"] == 1e-2


def test_refuses_a_checkpoint_of_another_training(tmp_path):
    train(tmp_path, steps=2)
    with pytest.raises(ValueError, match="begun with seed 3, not 4"):
        train(tmp_path, steps=4, seed=4)
    other = Regression()
    other.modules = {"net": nn.Linear(2, 2)}
    with pytest.raises(ValueError, match="does not fit the module 'net'"):
        Trainer(other, settings(), tmp_path, progress=Progress(io.StringIO())).run()


def test_loss_that_is_not_finite_stops_the_training(tmp_path):
    stage = Regression()
    stage.loss = lambda batch, generator: (stage.net(batch["x"]).sum() * float("nan"), {})
    with pytest.raises(FloatingPointError, match="at step 0"):
        Trainer(stage, settings(), tmp_path, progress=Progress(io.StringIO())).run()


def test_average_follows_its_formula():
    """d_n = min(decay, (1 + n) / (10 + n)); w goes 1, 2, 3 from a start of 0."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema, expected = EMA({"m": module}, decay=0.15), 0.0
    for n, d in enumerate((1 / 10, 0.15, 0.15)):
        nn.init.constant_(module.weight, n + 1.0)
        ema.update()
        expected = d * expected + (1 - d) * (n + 1.0)
        assert ema.shadow["m"]["weight"].item() == pytest.approx(expected, rel=1e-6)
    with ema.swapped_in():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 3.0
    with pytest.raises(ValueError, match=r"EMA decay is 1\.0"):
        EMA({"m": module}, decay=1.0)


def test_learning_rate():
    s = settings(lr=1.0, warmup_steps=10, lr_end=0.1)
    assert s.lr_at(0, 0.0) == pytest.approx(0.1) and s.lr_at(9, 0.0) == pytest.approx(1.0)
    assert s.lr_at(100, 0.5) == pytest.approx(0.55) and s.lr_at(100, 1.0) == pytest.approx(0.1)
    flat = settings(lr=1.0, warmup_steps=0, lr_end=0.0, schedule="constant", decay=0.25)
    assert flat.lr_at(5, 0.7) == 1.0 and flat.lr_at(5, 0.875) == pytest.approx(0.5) and flat.lr_at(5, 1.0) == 0.0


def test_seeds_are_apart():
    draws = {
        torch.rand(1, generator=seeded(seed, stream, step)).item()
        for seed in range(4)
        for stream in range(2)
        for step in range(32)
    }
    assert len(draws) == 4 * 2 * 32
    assert torch.rand(1, generator=seeded(1, 0, 2)) == torch.rand(1, generator=seeded(1, 0, 2))


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(seconds=5.0), "either steps or seconds"),
        (dict(steps=None), "either steps or seconds"),
        (dict(steps=0), "steps is 0"),
        (dict(lr=-1.0), "lr is -1.0"),
        (dict(lr_end=2.0), "lr_end"),
    ],
)
def test_refuses_settings(bad, says):
    with pytest.raises(ValueError, match=says):
        settings(**bad)


def test_progress_line_and_log(tmp_path):
    stream = io.StringIO()
    progress = Progress(stream, every=0.0)
    progress.update(1, 8, 0.5, 0.1, 3720.0)
    assert stream.getvalue() == "step 1   10.0%  loss 0.5000  0.0 clips/s  1h02m left\n"
    assert [duration(s) for s in (0.2, 59.6, 185, 7620)] == ["0s", "1m00s", "3m05s", "2h07m"]
    log = Log(tmp_path / "log.jsonl")
    for step in range(5):
        log.write({"step": step, "loss": 0.1 * step})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    Log(tmp_path / "log.jsonl", step=3).close()
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [0, 1, 2]
    draw_curve(tmp_path / "loss.png", [{"step": i, "loss": 1 / (i + 1)} for i in range(50)])
    assert (tmp_path / "loss.png").stat().st_size > 1000
