"""Weights in 8 or 4 bits: the linear layers of a network are quantized one by one while they are read, by torchao.

Only weights are quantized, and only in memory: each is turned back into the computing type when its layer runs, so that
activations stay as they are and any device can do it. Steps of a weight: int8 and float8 are scaled row by row; int4 is
NF4, whose 16 levels are the quantiles of a normal distribution, scaled in blocks of 64 (Dettmers et al., "QLoRA:
Efficient Finetuning of Quantized LLMs", 2023, arXiv:2305.14314; the scales are quantized as well). torchao's own int4
formats are for single kinds of GPU; NF4 runs everywhere.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from kinema.core.errors import KinemaError

BLOCK, SCALES = 64, 256  # weights that share a scale, and scales that share one, as in the paper


def check_torchao() -> None:
    """Raises: KinemaError where torchao is missing."""
    try:
        import torchao  # noqa: F401
    except ImportError as error:
        raise KinemaError(
            "quantization needs torchao, which is not installed; run: pip install 'kinema[quantization]'"
        ) from error


def config(kind: Any, quantization: str) -> Any:
    """What `from_pretrained` of a class of diffusers or transformers is told, so that it quantizes as it reads.

    Of a diffusion network the layers are left out that diffusers keeps out of layerwise casting: embeddings, norms
    and the last layer, which are few and sensitive.
    """
    from torchao.quantization import Float8WeightOnlyConfig, FqnToConfig, Int8WeightOnlyConfig

    chosen = {"int8": lambda: Int8WeightOnlyConfig(version=2), "float8": Float8WeightOnlyConfig, "int4": _nf4}
    made = chosen[quantization]()
    if not hasattr(kind, "load_config"):
        from transformers import TorchAoConfig

        return TorchAoConfig(made)
    import diffusers

    network: Any = diffusers.TorchAoConfig
    return network(FqnToConfig({f"re:{_inside(skipped(kind))}": made}))


def skipped(kind: Any) -> tuple[str, ...]:
    """Regular expressions of the modules of a diffusers class that stay in the computing type."""
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN as DEFAULT

    own = (getattr(kind, name, None) or () for name in ("_skip_layerwise_casting_patterns", "_keep_in_fp32_modules"))
    return (*DEFAULT, *(pattern for patterns in own for pattern in patterns))


def _inside(patterns: tuple[str, ...]) -> str:
    """A regular expression for the layers of which no pattern is found in the name, or in that of a module around."""
    begins = "|".join(f"(?:{p.replace('$', '(?:[.]|$)')})" for p in patterns)
    return rf"(?!.*?(?:{begins}))(?!.*[.]weight$).*"


@cache
def _nf4() -> Any:
    """torchao's NF4 as one of its configs; it has none of its own outside its prototypes."""
    from torchao.core.config import AOBaseConfig
    from torchao.quantization import NF4Tensor
    from torchao.quantization.transform_module import register_quantize_module_handler

    @dataclass
    class NF4(AOBaseConfig):  # type: ignore[misc]
        pass

    @register_quantize_module_handler(NF4)  # type: ignore[untyped-decorator]
    def quantize(layer: nn.Module, config: NF4) -> nn.Module:
        weight: Any = layer.weight
        scales = weight.numel() // BLOCK
        if scales * BLOCK == weight.numel():  # else it is a small layer, and stays
            packed = NF4Tensor.from_tensor(weight.detach(), BLOCK, math.gcd(scales, SCALES))
            layer.weight = nn.Parameter(packed, requires_grad=False)
        return layer

    return NF4()


def layers(network: Any) -> list[nn.Linear]:
    """The layers of a network that are quantized when it is read with `config`."""
    if hasattr(network, "load_config"):
        return [layer for layer in cast_layers(network) if isinstance(layer, nn.Linear)]
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = HfQuantizer.get_modules_to_not_convert(network, None, network._keep_in_fp32_modules)
    return [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and should_convert_module(f"{name}.weight", kept)
        if not isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear)  # torch's own attention reads it
    ]


def cast_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of a diffusion network whose weights layerwise casting keeps in float8."""
    from diffusers.hooks._common import _GO_LC_SUPPORTED_PYTORCH_LAYERS as LAYERS

    patterns = skipped(type(network))
    found: list[nn.Module] = []
    for name, layer in network.named_modules():
        around = accumulate(name.split("."), lambda outer, inner: f"{outer}.{inner}")
        if isinstance(layer, LAYERS) and not any(re.search(p, place) for place in around for p in patterns):
            found.append(layer)
    return found


def packed(weight: Tensor, quantization: str) -> int:
    """Bytes of a quantized weight (rows, columns) with its scales."""
    count, rows = weight.numel(), weight.shape[0]
    if quantization == "int4":
        scales, odd = divmod(count, BLOCK)
        if odd:
            return count * weight.element_size()
        return count // 2 + scales + (scales // math.gcd(scales, SCALES) + 17) * weight.element_size()
    return count + rows * (5 if quantization == "int8" else 4)


def nbytes(tensor: Tensor) -> int:
    """Bytes that a tensor holds, packed ones included."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()
    return sum(nbytes(getattr(tensor, name)) for name in names)
