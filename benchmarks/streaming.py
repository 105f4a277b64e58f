"""A model larger than the memory it may have: offload "stream" against the loaded model, in processes of their own.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --gigabytes 4 --dtype bfloat16 --limit 900 --out streaming.json

The model is `mini` with a random transformer of Wan's layout, written block by block. Every process
first makes a clip with `mini` itself, so that all libraries are loaded; what it holds then is the baseline, and memory
is counted above it: pages of the process (resident, as Linux counts them, those of files too), and weights by their
own sizes. Two runs get a hard limit from the system, RLIMIT_DATA, which counts all memory that is the process's own,
weights and everything else, and lets files be read: the streamed model must run under it, and the loaded one must fail.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MB = 1e6
CLIP = dict(prompt="a red ball rolls to the left", height=64, width=64, num_frames=5, seed=7)
FFN, HEADS, HEAD_DIM = 4096, 8, 128  # of a block of 16.8 million weights


def build(folder: Path, size: float, dtype: str) -> None:
    """`mini` with a random transformer of `size` bytes, a file for each block."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel
    from safetensors.torch import save_file

    from kinema.backbones.load import embedded

    shutil.copytree(embedded()["mini"], folder)
    part = folder / "transformer"
    kind = getattr(torch, dtype)
    config = json.loads((part / "config.json").read_text())
    config |= dict(num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, ffn_dim=FFN)
    block = 8 * (HEADS * HEAD_DIM) ** 2 + 2 * HEADS * HEAD_DIM * FFN
    config["num_layers"] = max(2, round(size / kind.itemsize / block))
    for file in part.glob("*.safetensors*"):
        file.unlink()
    (part / "config.json").write_text(json.dumps(config, indent=2))
    with init_empty_weights():
        network = WanTransformer3DModel.from_config(config)
    generator = torch.Generator().manual_seed(0)
    files: dict[str, dict[str, Any]] = {}  # one a block, so that one block at a time is in memory
    for name, weight in network.state_dict().items():
        inside = name.split(".")[1] if name.startswith("blocks.") else "rest"
        files.setdefault(f"diffusion_pytorch_model-{inside}.safetensors", {})[name] = weight
    places, total = {}, 0
    for file, weights in files.items():
        made = {n: (0.02 * torch.randn(w.shape, generator=generator)).to(kind) for n, w in weights.items()}
        save_file(made, part / file)
        places |= dict.fromkeys(made, file)
        total += sum(w.numel() * w.element_size() for w in made.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def status(name: str) -> int:
    """A size that Linux keeps of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc/self/status, which only Linux has")


def measure(model: Path, how: str, dtype: str, steps: int, limit: float | None) -> dict[str, Any]:
    """One clip in this process: bytes above the baseline, seconds, and what came out."""
    import torch

    from kinema.backbones.load import load
    from kinema.core.loop import sample
    from kinema.request import Request

    asked = Request(**CLIP, num_inference_steps=steps)
    sample(load("mini", "cpu", dtype), asked)
    baseline = status("VmRSS")
    if limit is not None:
        most = status("VmData") + int(limit)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins here
    latents: list[torch.Tensor] = []
    began = time.perf_counter()
    backbone: Any = load(model, "cpu", dtype, offload=None if how == "loaded" else "stream")
    opened = time.perf_counter()
    frames = sample(backbone, asked, on_step=lambda step, x: latents.append(x))
    ended = time.perf_counter()
    networks = (backbone.transformer, backbone.text_encoder)
    weights = sum(p.numel() * p.element_size() for network in networks for p in network.parameters() if not p.is_meta)
    if how == "stream":
        weights = backbone.folder.stream.kept + backbone.folder.stream.most
    return {
        "resident": status("VmHWM") - baseline,
        "weights": weights,
        "blocks": len(backbone.transformer.blocks),
        "load": opened - began,
        "sample": ended - opened,
        "result": hashlib.sha256(latents[-1].numpy().tobytes() + frames.numpy().tobytes()).hexdigest(),
    }


def apart(arguments: list[str]) -> dict[str, Any]:
    """`measure` in a process of its own; what it said last, where it failed."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        return {"failed": lines[-1][:110]}
    return json.loads(done.stdout.splitlines()[-1])


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"{'':18}{'weights MB':>12}{'resident MB':>13}{'load s':>9}{'sample s':>10}"
    for name, row in found.items():
        if "failed" in row:
            yield f"{name:18}fails: {row['failed']}"
            continue
        sizes = f"{row['weights'] / MB:12.0f}{row['resident'] / MB:13.0f}"
        yield f"{name:18}{sizes}{row['load']:9.2f}{row['sample']:10.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a model that is larger than its memory.")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the random transformer on the disk")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of files and computing")
    parser.add_argument("--limit", type=float, default=500, help="hard limit above the baseline, MB")
    parser.add_argument("--steps", type=int, default=2, help="solver steps")
    parser.add_argument("--out", type=Path, help="write the numbers there as JSON")
    parser.add_argument("--measure", nargs=3, metavar=("MODEL", "HOW", "LIMIT"), help="one process of it")
    given = parser.parse_args()
    if given.measure:
        model, how, limit = given.measure
        print(
            json.dumps(measure(Path(model), how, given.dtype, given.steps, float(limit) * MB if limit != "-" else None))
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        build(model, given.gigabytes * 1e9, given.dtype)
        found = {}
        for how in ("loaded", "stream"):
            for limit in ("-", str(given.limit)):
                name = how if limit == "-" else f"{how}, {given.limit:g} MB"
                words = ["--dtype", given.dtype, "--steps", str(given.steps)]
                found[name] = apart([*words, "--measure", str(model), how, limit])
    print("\n".join(lines(found)))
    results = {row["result"] for row in found.values() if "result" in row}
    print(f"{found['stream']['blocks']} blocks; results are {'identical' if len(results) == 1 else 'NOT identical'}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
