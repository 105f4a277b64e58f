"""How fast the devices of this machine multiply in each number type, measured, and what `load` picks from them."""

from __future__ import annotations

import time
from typing import Any

SIZES = {"cpu": 512, "mps": 2048, "cuda": 4096}  # rows and columns of the matrices
SECONDS = 0.15  # of multiplying for one type, at least


def measure(device: str) -> dict[str, float]:
    """Number type -> billions of multiplications and additions a second (GFLOP/s) in a square matrix product.

    Types that the device refuses are left out. Takes about half a second, most of it for types it is slow in.
    """
    import torch

    from kinema.backbones.load import DTYPES

    found = {}
    for name, dtype in DTYPES.items():
        try:
            found[name] = _gflops(torch.device(device), dtype)
        except RuntimeError:  # a type without kernels, or a device without memory
            continue
    return found


def _gflops(device: Any, dtype: Any) -> float:
    import torch

    size = SIZES[device.type]
    x = torch.ones(size, size, device=device).to(dtype)

    def seconds() -> float:
        began = time.perf_counter()
        product = x @ x
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - began

    seconds()  # kernels are chosen, clocks go up
    times = [seconds()]
    while sum(times) < SECONDS:
        times.append(seconds())
    return 2 * size**3 / min(times) / 1e9


def choice(speeds: dict[str, dict[str, float]]) -> dict[str, str]:
    """What `load` takes where device and dtype are left open, and why, in the light of what was measured.

    speeds: device -> number type -> GFLOP/s.
    """
    from kinema.backbones.load import pick_device, pick_dtype

    device = pick_device(None)
    dtype = str(pick_dtype(None, device)).removeprefix("torch.")
    of = next((row for name, row in speeds.items() if name.split(":")[0] == device.type), {})
    why = {
        "cuda": f"this GPU {'computes' if dtype == 'bfloat16' else 'does not compute'} in bfloat16",
        "mps": "float32 is the most exact type of the GPU",
        "cpu": "there is no GPU, and float32 is the most exact type",
    }[device.type]
    best = max(of, key=lambda name: of[name], default=dtype)
    if dtype in of and of[best] >= 1.2 * of[dtype]:
        doubt = ", whose large numbers may overflow," if best == "float16" else ""
        why += f"; {best}{doubt} multiplies {of[best] / of[dtype]:.1f} times as fast here (--dtype {best})"
    elif dtype in of:
        why += "; no type is much faster here"
    return {"device": device.type, "dtype": dtype, "why": why}
