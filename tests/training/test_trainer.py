"""The trainer: exact resume, checkpoints that survive a kill, the weight average, what it prints."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from kinema.core.errors import KinemaError
from kinema.training.checkpoint import checkpoints
from kinema.training.ema import EMA, WIDEST, power_exponent
from kinema.training.progress import Log, Progress, draw_curve, duration, read_log, ticks
from kinema.training.trainer import Trainer, TrainerSettings, seeded


class Regression:
    """A tiny stage: y = sin(sum x), with noise on the input and dropout; counts the sheets it is asked for."""

    def __init__(self, stop_at: int | None = None, stop_by: signal.Signals = signal.SIGTERM) -> None:
        g = torch.Generator().manual_seed(1)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
        with torch.no_grad():
            for p in self.net.parameters():
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
        self.modules = {"net": self.net}
        self.stop_at, self.stop_by, self.sheets = stop_at, stop_by, 0

    def batch(self, step: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if step == self.stop_at:
            signal.raise_signal(self.stop_by)  # in this thread, at once
        x = torch.randn(8, 4, generator=generator)
        return {"x": x, "y": x.sum(1, keepdim=True).sin()}

    def loss(self, batch, generator):
        x = batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator)
        loss = (self.net(x).float() - batch["y"]).square().mean()
        return loss, {"rmse": loss.sqrt()}

    def sheet(self, path: Path) -> None:
        self.sheets += 1
        Image.new("RGB", (6, 4), "red").save(path)


class Evaluated(Regression):
    """The same, and it says what it was evaluated with."""

    def evaluate(self) -> dict[str, float]:
        torch.rand(3)  # its own random numbers are not the training's
        assert not self.net.training and not torch.is_grad_enabled()
        return {"weight": float(self.net[0].weight.detach()[0, 0]), "half": 0.5}


def settings(**changes) -> TrainerSettings:
    plain = dict(steps=60, batch_size=8, lr=1e-2, warmup_steps=5, precision="fp32", ema=0.9, seed=3, tensorboard=False)
    return TrainerSettings(**{**plain, **changes})


def train(folder: Path, stop_at: int | None = None, **changes):
    return run(Regression(stop_at), folder, **changes)


def run(stage, folder: Path, **changes):
    trainer = Trainer(stage, settings(**changes), folder, progress=Progress(io.StringIO()))
    return trainer, trainer.run()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2}, {"prefetch": True, "ema_sigma_rel": 0.1}, {"precision": "bf16"}], ids=str
)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_save_first_and_are_put_back(tmp_path, number):
    stage = Regression(3, number)
    before, state = signal.getsignal(number), torch.get_rng_state()
    _, report = run(stage, tmp_path)
    assert report.interrupted and report.step == 4
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["step-00000004"]
    assert signal.getsignal(number) is before and torch.equal(torch.get_rng_state(), state)


def test_a_second_signal_acts_as_without_us(tmp_path):
    stage = Regression(3, signal.SIGINT)
    stage.loss = lambda batch, generator: signal.raise_signal(signal.SIGINT)
    stage.stop_at = 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(stage, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def test_kill_leaves_a_whole_checkpoint_and_resumes_exactly(tmp_path):
    """kill -9 in a process that writes a checkpoint each step, so that it is often hit while writing one."""
    how = dict(steps=2000, ema_sigma_rel=0.1, prefetch=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_trainer as t;"
        f"t.train(Path(sys.argv[2]), **{how!r}, checkpoint_seconds=0.0)"
    )
    folder = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(folder)])
    deadline = time.monotonic() + 600
    while not (checkpoints(folder / "checkpoints") and checkpoints(folder / "checkpoints")[-1].name > "step-00000020"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    at = int(checkpoints(folder / "checkpoints")[-1].name[5:])
    assert 20 < at < 2000
    # Both go on with the learning rate of 2000 steps, and are stopped at the same place, which they are not exactly
    # where batches are made ahead.
    how["prefetch"] = False
    resumed, _ = train(folder, stop_at=at + 20, **how)
    whole, _ = train(tmp_path / "whole", stop_at=at + 20, **how)
    assert losses(folder) == losses(tmp_path / "whole")
    assert torch.equal(resumed.ema.shadow["net"]["0.weight"], whole.ema.shadow["net"]["0.weight"])
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


def test_checkpoints_hold_what_is_trained(tmp_path):
    """A frozen layer is neither saved nor averaged; an older checkpoint that has it still fits."""

    def stage(width: int = 4) -> Regression:
        made = Regression()
        made.net[0] = nn.Linear(4, width).requires_grad_(False)
        made.net.append(nn.BatchNorm1d(1))
        made.net[3] = nn.Linear(width, 1)
        return made

    trainer, _ = run(stage(), tmp_path, steps=2)
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    tensors = load_file(newest / "net.safetensors")
    learned = {"3.weight", "3.bias", "4.weight", "4.bias"}
    assert tensors.keys() == learned | {"4.running_mean", "4.running_var", "4.num_batches_tracked"}
    assert load_file(newest / "net.ema.safetensors").keys() == trainer.ema.shadow["net"].keys() == learned
    save_file({**tensors, "0.weight": torch.ones(4, 4), "0.bias": torch.ones(4)}, newest / "net.safetensors")
    resumed, _ = run(stage(), tmp_path, steps=2)
    assert torch.equal(resumed.stage.net[0].weight, torch.ones(4, 4))
    assert torch.equal(resumed.stage.net[3].weight, trainer.stage.net[3].weight)
    assert torch.equal(resumed.stage.net[4].running_mean, trainer.stage.net[4].running_mean)
    for file in (tensors | {"5.weight": torch.ones(1)}, {k: v for k, v in tensors.items() if k != "3.bias"}):
        save_file(file, newest / "net.safetensors")
        with pytest.raises(ValueError, match="does not fit the module 'net'"):
            run(stage(), tmp_path, steps=3)


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


def test_a_number_is_the_mean_of_the_micro_batches_that_have_it(tmp_path):
    stage, calls = Regression(), []

    def loss(batch, generator):
        calls.append(len(calls))
        found = stage.net(batch["x"]).square().mean()
        return found, {"call": float(calls[-1])} | ({"odd": 2.0} if calls[-1] % 2 else {})

    stage.loss = loss
    run(stage, tmp_path, steps=2, accumulate=2)
    rows = read_log(tmp_path / "log.jsonl")
    assert [(row["call"], row["odd"]) for row in rows] == [(0.5, 2.0), (2.5, 2.0)]


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


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2, WIDEST])
def test_power_average_is_as_wide_as_asked(sigma_rel):
    """Of a ramp t the average is its mean, (gamma + 1) / (gamma + 2) of the time; with that of t ** 2, its width."""
    module, steps = nn.Linear(2, 1, bias=False), 2000
    ema, gamma = EMA({"m": module}, 0.9, sigma_rel), power_exponent(sigma_rel)
    for n in range(1, steps + 1):
        module.weight.data = torch.tensor([[n / steps, (n / steps) ** 2]])
        ema.update()
        if n == 1:
            assert torch.equal(ema.shadow["m"]["weight"], module.weight)  # nothing of what was there at the start
    mean, square = ema.shadow["m"]["weight"].double().flatten().tolist()
    assert mean == pytest.approx((gamma + 1) / (gamma + 2), rel=2e-3)
    assert (square - mean**2) ** 0.5 == pytest.approx(sigma_rel, rel=2e-3)


def test_power_exponents():
    # The paper gives gamma = 6.94 for a width of 0.10, and 16.97 for 0.05.
    assert power_exponent(0.1) == pytest.approx(6.94, abs=0.005) and power_exponent(0.05) == pytest.approx(
        16.97, abs=0.005
    )
    assert power_exponent(WIDEST) == pytest.approx(0, abs=1e-6)
    for bad in (0.0, 0.29, -0.1):
        with pytest.raises(ValueError, match=rf"ema_sigma_rel is {bad}; use above 0 up to 0.2887"):
            settings(ema_sigma_rel=bad)


def test_evaluation_changes_nothing_and_sees_the_average(tmp_path):
    train(tmp_path / "plain", steps=20)
    trainer, _ = run(Evaluated(), tmp_path / "evaluated", steps=20, evaluate_steps=8)
    assert losses(tmp_path / "evaluated") == losses(tmp_path / "plain")
    rows = read_log(tmp_path / "evaluated" / "evaluation.jsonl")
    assert [row["step"] for row in rows] == [8, 16, 20]  # and once at the end
    last = float(trainer.ema.shadow["net"]["0.weight"][0, 0])
    assert rows[-1]["weight"] == pytest.approx(last, rel=1e-7) and rows[-1]["half"] == 0.5
    assert trainer.stage.net[0].weight[0, 0].item() != pytest.approx(last, rel=1e-4)
    assert (tmp_path / "evaluated" / "evaluation.png").stat().st_size > 1000
    run(Evaluated(), tmp_path / "evaluated", steps=20, evaluate_steps=8)  # finished: nothing is told twice
    assert len(read_log(tmp_path / "evaluated" / "evaluation.jsonl")) == 3
    with pytest.raises(ValueError, match="this stage has no evaluation"):
        train(tmp_path / "none", evaluate_seconds=1.0)


def test_evaluation_uses_up_no_budget(tmp_path, monkeypatch):
    """On a clock that goes 1 second a step, and 100 an evaluation."""
    now = [0.0]
    monkeypatch.setattr("kinema.training.trainer.time", SimpleNamespace(monotonic=lambda: now[0]))
    stage, batch = Evaluated(), Regression().batch

    def slow(seconds: float, result):
        now[0] += seconds
        return result

    stage.batch = lambda *args: slow(1.0, batch(*args))
    stage.evaluate = lambda: slow(100.0, {"a": 1.0})
    _, report = run(stage, tmp_path, steps=None, seconds=10.0, evaluate_seconds=2.5)
    assert report.seconds == 10.0 and report.step == 10
    assert [row["step"] for row in read_log(tmp_path / "evaluation.jsonl")] == [3, 6, 9, 10]


def test_tensorboard_has_every_step_once(tmp_path):
    """The first run goes on after its last checkpoint and is killed; the second does those steps again."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    how = dict(steps=12, evaluate_steps=4, tensorboard=True)
    stage = Evaluated()
    stage.sheet = lambda path: (_ for _ in ()).throw(RuntimeError) if path.name == "sheet-00000012.png" else None
    run(Evaluated(6), tmp_path, **how)  # stops at 7
    with pytest.raises(RuntimeError):
        run(stage, tmp_path, **how)
    for later in checkpoints(tmp_path / "checkpoints")[1:]:
        shutil.rmtree(later)
    run(Evaluated(), tmp_path, **how)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("loss")] == list(range(1, 13))
    assert [e.value for e in board.Scalars("loss")] == pytest.approx(losses(tmp_path), rel=1e-6)
    assert [e.step for e in board.Scalars("evaluation/half")] == [4, 8, 12]
    assert [(e.step, e.width) for e in board.Images("sheet")] == [(7, 6), (12, 6)]


def test_tensorboard_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("kinema.training.records.find_spec", lambda name: None)
    with pytest.raises(KinemaError, match=r"pip install 'kinema\[tensorboard\]'"):
        train(tmp_path, tensorboard=True)
    train(tmp_path, steps=1, tensorboard=None)
    assert not (tmp_path / "tensorboard").exists()


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
        (dict(evaluate_steps=0), "evaluate_steps is 0"),
        (dict(evaluate_steps=1, evaluate_seconds=1.0), "either evaluate_steps or evaluate_seconds"),
        (dict(parallel="fsdp", optimizer="muon"), "muon needs whole matrices"),
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
    one = (tmp_path / "loss.png").read_bytes()
    draw_curve(tmp_path / "loss.png", [{"step": i % 25, "loss": 1 / (i + 1)} for i in range(50)])
    assert (tmp_path / "loss.png").read_bytes() != one  # a second part begins at step 25
    with Image.open(tmp_path / "loss.png") as picture:
        line = [picture.getpixel((x, 200)) for x in range(picture.width)].index((194, 65, 12))
    assert abs(line - (80 + 804 * 25 / 49)) < 2


@pytest.mark.parametrize(
    "low, high, logarithmic, expected",
    [
        (0.116, 0.821, True, [0.2, 0.4, 0.6, 0.8]),
        (0.03, 0.9, True, [0.05, 0.1, 0.2, 0.5]),
        (1e-5, 1.0, True, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
        (0.0, 100.0, False, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]),
        (-0.3, 0.31, False, [-0.2, 0.0, 0.2]),
    ],
)
def test_ticks_are_round_numbers(low, high, logarithmic, expected):
    assert ticks(low, high, logarithmic) == pytest.approx(expected)
