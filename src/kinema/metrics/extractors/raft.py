"""RAFT: optical flow by a network, of torchvision."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from kinema.core.errors import KinemaError, Unreachable
from kinema.core.optional import library
from kinema.metrics.extractors.extractor import Extractor, extractor

LEAST = 128  # pixels a side: its coarsest map needs 2 cells of 64
UPDATES = 20  # as often as VBench lets it improve its guess


@extractor("raft", gives=("flow",), usual="C_T_SKHT_V2")
class Raft(Extractor):
    """The large network of "RAFT", 2020, arXiv:2003.12039, with weights of torchvision.

    Its model is one of torchvision's sets of weights, "C_T_V2" for example, or a folder with such weights as
    `model.safetensors`. Pictures are continued by their edge pixels to a multiple of 8, at least 128 a side.
    """

    def __init__(self, model: str) -> None:
        super().__init__(model)
        try:
            flows = library("torchvision.models.optical_flow", "raft")
        except RuntimeError as error:  # its operators do not load
            raise KinemaError("the installed torchvision does not fit the installed torch; install a pair") from error
        self.net = flows.raft_large(weights=None).eval().requires_grad_(False)
        try:
            self.net.load_state_dict(_weights(flows.Raft_Large_Weights, model))
        except RuntimeError as error:
            raise KinemaError(f"the weights in {model} are not of torchvision's raft_large") from error

    def flow(self, frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        found = np.zeros((len(frames) - 1, height, width, 2), np.float32)
        with torch.inference_mode():
            for i, (one, other) in enumerate(pairwise(_ready(frame) for frame in frames)):
                moves = self.net(one, other, num_flow_updates=UPDATES)[-1][0, :, :height, :width]
                found[i] = moves.permute(1, 2, 0).numpy()
        return found


def _ready(frame: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H', W') in -1..1, both sides a multiple of 8."""
    height, width = frame.shape[:2]
    x = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 127.5 - 1
    return F.pad(x, (0, _rest(width), 0, _rest(height)), mode="replicate")


def _rest(size: int) -> int:
    """Pixels to the next multiple of 8, or to the least side."""
    return max(LEAST - size, -size % 8)


def _weights(known: Any, model: str) -> dict[str, torch.Tensor]:
    """The tensors of a folder, or of one of torchvision's sets by name, checked by its hash and read as tensors only.

    Raises: Unreachable when they cannot be fetched, KinemaError when there are none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if model in known.__members__:
        try:
            fetched: dict[str, torch.Tensor] = known[model].get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise Unreachable(
                f"torchvision's weights {model} of raft_large cannot be fetched; go online once, "
                "or name a folder that holds them as model.safetensors: raft@FOLDER"
            ) from error
        return fetched
    file = Path(model) / "model.safetensors"
    if not file.is_file():
        names = ", ".join(name for name in known.__members__ if name != "DEFAULT")
        raise KinemaError(f"extractor raft knows no model {model!r}; use a folder with model.safetensors, or {names}")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise KinemaError(f"{file} is damaged") from error
