"""What a training leaves in its folder to be looked at, besides checkpoints.

    log.jsonl               a line a step
    loss.png                the loss curve
    sheet-NNNNNNNN.png      samples at that step
    evaluation.jsonl        a line an evaluation, drawn in evaluation.png
    tensorboard/            all of it once more, where it is wanted

Reopened at a step, what came later is dropped: a training that was killed after its checkpoint does it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kinema.core.errors import KinemaError
from kinema.training.progress import Log, draw_curve, draw_curves, read_log


class Records:
    """The records of a training in `folder` that goes on after `step` steps."""

    def __init__(self, folder: Path, step: int, tensorboard: bool | None = False) -> None:
        self.folder = folder
        self.log = Log(folder / "log.jsonl", step)
        # Steps are counted from 0 in the log, and an evaluation tells how many were done before it.
        self.evaluations = Log(folder / "evaluation.jsonl", step + 1) if self._evaluated() else None
        self.board: Any = None
        if with_tensorboard(tensorboard):
            from torch.utils.tensorboard import SummaryWriter

            # Everything there counts the steps done.
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def step(self, row: Mapping[str, float]) -> None:
        """The numbers of one step, whose number, from 0, is among them."""
        self.log.write(row)
        self._scalars("", row, int(row["step"]) + 1)

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of an evaluation after `step` steps."""
        if self.evaluations is None:
            self.evaluations = Log(self.folder / "evaluation.jsonl")
        self.evaluations.write({"step": step, **numbers})
        self.evaluations.flush()
        self._scalars("evaluation/", numbers, step)
        draw_curves(self.folder / "evaluation.png", read_log(self.folder / "evaluation.jsonl"))

    def evaluated_at(self) -> int | None:
        """After how many steps the last evaluation was, if there was one."""
        rows = read_log(self.folder / "evaluation.jsonl") if self._evaluated() else []
        return int(rows[-1]["step"]) if rows else None

    def sheet(self, step: int, path: Path) -> None:
        """A sheet of samples that was drawn after `step` steps; and the loss curve up to there."""
        self.flush()
        draw_curve(self.folder / "loss.png", read_log(self.folder / "log.jsonl"))
        if self.board is not None and path.is_file():
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self.board.add_image("sheet", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def last_loss(self, steps: int = 100) -> float:
        """The mean loss over the last `steps` steps."""
        self.flush()
        losses = [row["loss"] for row in read_log(self.folder / "log.jsonl")[-steps:]]
        return sum(losses) / max(1, len(losses))

    def flush(self) -> None:
        self.log.flush()
        if self.board is not None:
            self.board.flush()

    def close(self) -> None:
        for part in (self.log, self.evaluations, self.board):
            if part is not None:
                part.close()

    def _evaluated(self) -> bool:
        return (self.folder / "evaluation.jsonl").exists()

    def _scalars(self, prefix: str, numbers: Mapping[str, float], step: int) -> None:
        if self.board is not None:
            for key, value in numbers.items():
                if key != "step":
                    self.board.add_scalar(prefix + key, value, step)


def with_tensorboard(wanted: bool | None) -> bool:
    """Whether to write for TensorBoard: as `wanted`, and if that is None, where it is installed.

    Raises: KinemaError when it is wanted and not installed.
    """
    there = wanted is not False and find_spec("tensorboard") is not None
    if wanted and not there:
        raise KinemaError("tensorboard is true, but it is not installed; run: pip install 'kinema[tensorboard]'")
    return there
