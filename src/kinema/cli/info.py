"""`kinema models`, `kinema schema`, `kinema doctor`: what there is, without making anything."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

from kinema.cli import options

LIBRARIES = (
    "kinema", "torch", "diffusers", "transformers", "accelerate", "peft", "torchao", "safetensors", "av", "numpy",
    "pillow", "opencv-python-headless", "scipy", "scenedetect-headless", "ray",
)  # fmt: skip

models = typer.Typer(add_completion=False)
schema = typer.Typer(add_completion=False)
doctor = typer.Typer(add_completion=False)


@schema.command("schema")
def _schema() -> None:
    """Print what a request may hold, as JSON schema: every field with its unit, range and default."""
    from kinema.request import request_schema

    print(json.dumps(request_schema(), indent=2))


@models.command("models")
def _models(as_json: options.AsJson = False) -> None:
    """List the embedded models with their size and scores, and say how to name others."""
    from kinema.backbones.load import checkpoints, embedded

    rows = [describe(name, folder) for name, folder in embedded().items()]
    if as_json:
        print(json.dumps({"embedded": rows, "checkpoints": checkpoints()}))
        return
    for row in rows:
        print(f"{row['name']}  {row['megabytes']:.1f} MB, {row['pipeline']}")
        for key, value in _flat(row["card"]):
            print(f"    {key}: {value}")
    if not rows:
        print("no model is embedded in this installation")
    print("More of each: kinema models --json")
    print("Others: --model FOLDER (a folder in diffusers layout) or --model OWNER/NAME (a hub id).")
    if checkpoints():
        print(f"Known hub ids: {', '.join(checkpoints())}")


def describe(name: str, folder: Any) -> dict[str, Any]:
    """An embedded model: its size on disk, its kind, and the card written when it was trained."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    card = folder / "card.json"
    return {
        "name": name,
        "megabytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6,
        "pipeline": index.get("_class_name"),
        "card": json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {},
    }


def _flat(card: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested card as lines; long lists and texts are cut, and the many settings left to `--json`."""
    lines: list[tuple[str, str]] = []
    for key, value in card.items():
        if key == "settings":
            continue
        if isinstance(value, dict) and {"right", "count", "value"} <= value.keys():
            lines.append((f"{prefix}{key}", f"{value['value']:.1%} ({value['right']} of {value['count']})"))
        elif isinstance(value, dict):
            lines += _flat(value, f"{prefix}{key}.")
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append((f"{prefix}{key}", text if len(text) <= 100 else f"{text[:97]}..."))
    return lines


@doctor.command("doctor")
def _doctor(as_json: options.AsJson = False) -> None:
    """Tell what is installed here, which device and number type kinema takes and why, and what would make it faster.

    Each device multiplies matrices for a moment in each number type.
    """
    found = examine()
    if as_json:
        print(json.dumps(found))
        return
    for title in ("python", "platform"):
        print(f"{title:<23}{found[title]}")
    for name, version in found["libraries"].items():
        print(f"{name:<23}{version or 'not installed'}")
    for device in found["devices"]:
        free = f", {_gb(device['free_gb'])} free" if device["free_gb"] is not None else ""
        print(f"{'device':<23}{device['name']} ({device['kind']}, {device['memory_gb']:.1f} GB{free})")
        speeds = ", ".join(f"{name} {value:.0f}" for name, value in found["speeds"][device["name"]].items())
        print(f"{'':<23}{speeds} GFLOP/s")
    default = found["default"]
    print(f"{'default':<23}--device {default['device']} --dtype {default['dtype']}: {default['why']}")
    print(f"{'threads':<23}{found['threads']} of {found['cpus']} CPUs, load {found['load']}")
    print(f"{'memory':<23}{_gb(found['memory_free_gb'])} free of {_gb(found['memory_gb'])}")
    print(f"{'disk':<23}{found['disk_free_gb']:.1f} GB free here")
    print(f"{'video':<23}{', '.join(f'{name} {state}' for name, state in found['encoders'].items())}")
    print(f"{'models':<23}{', '.join(found['models']) or 'none embedded'}")
    for line in found["advice"]:
        print(f"- {line}")


def examine() -> dict[str, Any]:
    """What `kinema doctor` found: JSON-able; memory in GB (10^9 bytes), None where the system does not say.

    "speeds" are GFLOP/s by device and number type, see `speeds.measure`.
    """
    import platform
    import shutil
    from importlib import metadata

    import torch

    from kinema.backbones.load import embedded
    from kinema.cli import speeds

    libraries: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = None
    total, free = _memory()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "libraries": libraries,
        "devices": _devices(total, free),
        "cpus": cpus,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "memory_gb": total,
        "memory_free_gb": free,
        "disk_free_gb": shutil.disk_usage(".").free / 1e9,
        "encoders": _encoders(),
        "models": list(embedded()),
    }
    found["speeds"] = {device["name"]: speeds.measure(device["name"]) for device in found["devices"]}
    found["default"] = speeds.choice(found["speeds"])
    found["advice"] = _advice(found)
    return found


def _devices(memory: float | None, free: float | None) -> list[dict[str, Any]]:
    import platform

    import torch

    devices = [
        {
            "name": f"cuda:{i}",
            "kind": torch.cuda.get_device_name(i),
            "memory_gb": torch.cuda.get_device_properties(i).total_memory / 1e9,
            "free_gb": torch.cuda.mem_get_info(i)[0] / 1e9,
        }
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    own = {"memory_gb": memory or 0.0, "free_gb": free}
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "kind": "Apple GPU", **own})
    return [*devices, {"name": "cpu", "kind": platform.processor() or platform.machine(), **own}]


def _memory() -> tuple[float | None, float | None]:
    """Total and available main memory, GB; a container's limit counts."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            table = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    except OSError:
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, None
        except (ValueError, OSError, AttributeError):
            return None, None
    total, free = table["MemTotal"], table.get("MemAvailable", table["MemFree"])
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            allowed = int(limit.read())
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as current:
            total, free = min(total, allowed), min(free, allowed - int(current.read()))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return total / 1e9, free / 1e9


def _encoders() -> dict[str, str]:
    import av

    found = {}
    for name in ("libx264", "libvpx-vp9", "aac", "libopus"):
        try:
            av.codec.Codec(name, "w")
            found[name] = "ok"
        except ValueError:  # PyAV's own kind for an unknown codec
            found[name] = "missing"
    return found


def _advice(found: dict[str, Any]) -> list[str]:
    advice = []
    if len(found["devices"]) == 1:
        advice.append("there is no GPU: 'mini' runs well on a CPU, checkpoints of billions of weights do not")
    if found["threads"] < found["cpus"]:
        advice.append(
            f"torch uses {found['threads']} of {found['cpus']} CPUs; set OMP_NUM_THREADS={found['cpus']} to use all"
        )
    if found["load"] is not None and found["load"] > found["cpus"]:
        advice.append(f"other programs are busy here (load {found['load']} on {found['cpus']} CPUs); expect to wait")
    if found["memory_free_gb"] is not None and found["memory_free_gb"] < 2:
        advice.append("less than 2 GB of memory are free, and 'mini' may need that much; close something first")
    if found["disk_free_gb"] < 1:
        advice.append("less than 1 GB of disk is free here; videos may not be written")
    missing = [name for name, state in found["encoders"].items() if state != "ok"]
    if missing:
        advice.append(
            f"this build of PyAV lacks {', '.join(missing)}; reinstall it from its wheel with: pip install av"
        )
    return advice or ["nothing stands in the way"]


def _gb(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} GB"
