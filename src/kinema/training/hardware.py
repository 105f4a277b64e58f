"""What a training runs on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def hardware(device: torch.device | str) -> str:
    """What a training ran on, in words: the GPU, or the number of CPU threads and the processor."""
    if torch.device(device).type == "cuda":
        return str(torch.cuda.get_device_name(torch.device(device)))
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    count = torch.get_num_threads()
    return f"{count} CPU thread{'s' if count > 1 else ''}, {names[0] if names else platform.machine()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
