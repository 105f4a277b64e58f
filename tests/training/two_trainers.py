"""What each of two processes does in `test_processes.py`: `torchrun --nproc-per-node 2 two_trainers.py FOLDER`."""

import copy
import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from kinema.core.errors import KinemaError
from kinema.training.trainer import Trainer, TrainerSettings

BOTH = dict(steps=4, batch_size=4, lr=1e-2, warmup_steps=2, precision="fp32", ema=0.9, seed=3, tensorboard=False)
RUNS = {
    "data": dict(accumulate=2),
    "fsdp": dict(parallel="fsdp", evaluate_steps=3, ema_sigma_rel=0.2, clip_norm=0.1),
}


class Net(nn.Module):
    """Words in, blocks in the middle, words out: of the same weights; one layer is not trained, one not always used."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)])
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = self.words.weight
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.seldom = nn.Linear(6, 6)
        self.register_buffer("scale", torch.full((1,), 0.5))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.4)
        if os.environ.get("RANK") == "1":  # the weights of the first process are everyone's
            self.words.weight.data.zero_()

    def forward(self, ids: torch.Tensor, noise: torch.Tensor, often: bool) -> torch.Tensor:
        x = self.words(ids) + noise
        for block in self.blocks:
            x = x + block(x) * self.scale
        return self.out(self.frozen(x) + (self.seldom(x) if often else 0))


class Words:
    """A stage that draws everything in `batch`, as several processes need it."""

    def __init__(self, stop_at: int | None = None, size: int = 4) -> None:
        self.net, self.stop_at, self.size = Net(), stop_at, size
        self.modules = {"net": self.net}

    def batch(self, step: int, generator: torch.Generator) -> dict:
        if step == self.stop_at and os.environ.get("RANK", "1") == "1":  # the second alone is told to stop
            os.kill(os.getpid(), signal.SIGUSR1)
        ids = torch.randint(7, (self.size, 5), generator=generator)
        noise = 0.1 * torch.randn(self.size, 5, 6, generator=generator)
        weight = torch.rand(self.size, generator=generator)
        return {"ids": ids, "noise": noise, "weight": weight / weight.mean(), "names": ["a"] * self.size, "step": step}

    def loss(self, batch, generator):
        logits = self.net(batch["ids"], batch["noise"], batch["step"] % 2 == 0)
        clips = nn.functional.cross_entropy(logits.mT, batch["ids"].roll(1, 1), reduction="none").mean(1)
        return (clips * batch["weight"]).mean(), {"names": len(batch["names"])}

    def sheet(self, path: Path) -> None:  # by one process alone, which may copy and call what it trains
        copy.deepcopy(self.net)(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, 6), True)

    def evaluate(self) -> dict[str, float]:
        torch.rand(3)  # must not matter
        weights = [p.detach().square().sum() for p in self.net.parameters()]
        return {"norm": float(torch.stack(weights).sum())}


def train(folder: Path, stop_at: int | None = None, **changes):
    trainer = Trainer(Words(stop_at), TrainerSettings(**{**BOTH, **changes}), folder)
    return trainer, trainer.run()


def main(folder: Path) -> None:
    for name, changes in RUNS.items():
        train(folder / name, **changes)
    trainer, report = train(folder / "broken", stop_at=1, **RUNS["fsdp"])
    told = {"interrupted": report.interrupted, "step": report.step, "loss": report.loss}
    with trainer.ema.swapped_in():
        if trainer.processes.first:
            save_file({k: v.contiguous() for k, v in trainer.stage.net.named_parameters()}, folder / "out.safetensors")
    try:
        Trainer(Words(size=3), TrainerSettings(**BOTH), folder / f"odd.{trainer.processes.rank}").run()
    except KinemaError as error:
        told["odd"] = str(error)
    with trainer.processes.in_turn():
        told["after the first"] = (folder / "told.0.json").exists()
        (folder / f"told.{trainer.processes.rank}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
