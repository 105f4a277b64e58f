"""LoRA: small updates of a network's weights, put in beside them when a model is loaded.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685. A layer W becomes
W + weight * (alpha / rank) * B A; the sum is never written into W. Files may be laid out as diffusers, peft or the
models' own trainers write them, as far as diffusers translates them; a key that fits nothing is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.backbones.folder import as_sentence
from kinema.core.errors import KinemaError
from kinema.files import reason, sha256

if TYPE_CHECKING:
    from kinema.request import Lora

FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it inside a folder
# What peft knows of a layer, behind the layer's own name.
TENSORS = re.compile(r"\.(lora_[AB])\.(weight|bias)$")


def check_peft() -> None:
    """Raises: KinemaError where peft is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise KinemaError("a LoRA needs peft, which is not installed; run: pip install 'kinema[lora]'") from error


def locate(path: str) -> Path:
    """The file of a LoRA: a file, a folder that holds one, OWNER/NAME on the hub, or OWNER/NAME/FILE there."""
    place = Path(path).expanduser()
    if place.is_dir():
        return _only(place, path)
    if place.is_file():
        if place.suffix != ".safetensors":
            raise KinemaError(f"LoRA {path!r} is no safetensors file; kinema reads no other")
        return place
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(/[\w./-]+\.safetensors)?", path) and not (
        path.count("/") == 1 and place.suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
    ):
        return _from_hub(path)
    raise KinemaError(f"there is no LoRA {path!r}: it is no file, no folder and no hub id")


def _only(folder: Path, path: str) -> Path:
    if (folder / FILE).is_file():
        return folder / FILE
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "no safetensors file"
        raise KinemaError(f"LoRA {path!r} is a folder without {FILE} that holds {names}; name one file")
    return found[0]


def _from_hub(path: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    from kinema.backbones.load import fetching

    owner, name, *inside = path.split("/", 2)
    with fetching(f"there is no LoRA {path!r}: it is no file, no folder"):
        if inside:
            return Path(hf_hub_download(f"{owner}/{name}", inside[0]))
        return _only(Path(snapshot_download(f"{owner}/{name}", allow_patterns=["*.safetensors"])), path)


def hash_file(lora: Lora) -> str:
    """SHA-256 of its file."""
    try:
        return sha256(locate(lora.path))
    except OSError as error:
        raise KinemaError(f"cannot read LoRA {lora.path}: {reason(error)}") from error


def put_in(backbone: Any, loras: Sequence[Lora]) -> None:
    """Puts all of them into the networks of a loaded model, and notes in `backbone.lora` which files they were.

    Raises: KinemaError when the family takes none, or a file is damaged or made for another network.
    """
    check_peft()
    networks = takers(backbone)
    active: dict[str, dict[str, float]] = {name: {} for name in (*networks, "text_encoder")}
    for i, lora in enumerate(loras):
        tensors, alphas, metadata = _read(locate(lora.path), lora, backbone, next(iter(networks)))
        for source, target in _places(lora, tensors, backbone, networks):
            network = networks.get(target) or backbone.text_encoder
            part = _cut(tensors, source)
            options = dict(network_alphas=_part(alphas, source, target), metadata=_part(metadata, source, target))
            prefixed = {f"{target}.{name}": tensor for name, tensor in part.items()}
            _put(backbone, network, target, prefixed, f"lora{i}", options, lora)
            active[target][f"lora{i}"] = lora.weight
    for name, weights in active.items():
        if weights:
            network = networks.get(name) or backbone.text_encoder
            _tools().set_weights_and_activate_adapters(network, list(weights), list(weights.values()))
            network.eval().requires_grad_(False)
    backbone.lora = tuple((lora, hash_file(lora)) for lora in loras)


def takers(backbone: Any) -> dict[str, Any]:
    """The networks of a loaded model that predict, by name. Raises: KinemaError when they take no LoRA."""
    from diffusers.loaders.peft import PeftAdapterMixin

    networks = {name: getattr(backbone, name, None) for name in ("transformer", "transformer_2", "unet")}
    networks = {name: network for name, network in networks.items() if network is not None}
    if not networks or not all(isinstance(network, PeftAdapterMixin) for network in networks.values()):
        raise KinemaError(f"model {backbone.name!r} is a {backbone.folder.pipeline}, which takes no LoRA; leave it out")
    return networks


def _read(file: Path, lora: Lora, backbone: Any, main: str) -> tuple[dict[str, Any], Any, Any]:
    """Its tensors under the names of diffusers with a part before each, the alphas, and what peft wrote down."""
    import diffusers
    from safetensors import safe_open

    options: dict[str, Any] = dict(weight_name=file.name, local_files_only=True, use_safetensors=True)
    with as_sentence(f"LoRA {lora.path!r} cannot be read"), quiet():
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
        if odd := next((key for key in keys if "dora_scale" in key or "lora_magnitude" in key), None):
            raise KinemaError(f"LoRA {lora.path!r} is a DoRA (it holds {odd!r}), which kinema cannot put in")
        kind: Any = getattr(diffusers, backbone.folder.pipeline)
        if not hasattr(kind, "lora_state_dict"):
            kind = diffusers.CogVideoXPipeline  # whose reader translates nothing
        more = dict(unet_config=backbone.unet.config) if main == "unet" else {}
        tensors, *rest = kind.lora_state_dict(str(file.parent), return_lora_metadata=True, **more, **options)
    alphas, metadata = rest if len(rest) == 2 else (None, *rest)
    parts = ("transformer.", "transformer_2.", "unet.", "text_encoder.")
    if not any(key.startswith(parts) for key in tensors):  # as peft itself writes it, of one network
        named = {f"{main}.{key}": tensor for key, tensor in tensors.items()}
        return named, alphas, metadata and {f"{main}.{key}": value for key, value in metadata.items()}
    return tensors, alphas, metadata


def _places(
    lora: Lora, tensors: Mapping[str, Any], backbone: Any, networks: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Which part of the file goes into which network. One for a single expert goes into both, unless told otherwise."""
    found = list(dict.fromkeys(key.split(".", 1)[0] for key in tensors))
    two = "transformer_2" in networks
    if lora.expert is not None and not two:
        raise KinemaError(f"LoRA {lora.path!r} is meant for the {lora.expert} noise expert; this model has one network")
    places: list[tuple[str, str]] = []
    for part in found:
        known = part in networks or (part == "text_encoder" and "unet" in networks)
        if not known:
            _misfit(lora, backbone, [key for key in tensors if key.split(".", 1)[0] == part])
        if two and "transformer_2" not in found:
            wanted = {"high": ("transformer",), "low": ("transformer_2",), None: ("transformer", "transformer_2")}
            places += [(part, target) for target in wanted[lora.expert]]
        elif lora.expert is None or part == {"high": "transformer", "low": "transformer_2"}[lora.expert]:
            places.append((part, part))
    return places


def _put(
    backbone: Any, network: Any, target: str, tensors: dict[str, Any], adapter: str, options: dict[str, Any], lora: Lora
) -> None:
    with as_sentence(f"LoRA {lora.path!r} does not fit into model {backbone.name!r}"), quiet():
        tensors = _as_peft(tensors, target, network)
        _check_fit(tensors, target, network, lora, backbone)
        if target == "text_encoder":
            backbone.pipeline.load_lora_into_text_encoder(
                tensors, text_encoder=network, adapter_name=adapter, prefix=target, **options
            )
        else:
            network.load_lora_adapter(tensors, prefix=target, adapter_name=adapter, **options)


def _as_peft(tensors: dict[str, Any], target: str, network: Any) -> dict[str, Any]:
    """The names lora_A and lora_B, whatever the file calls its two factors."""
    tools, bare = _tools(), _cut(tensors, target)
    if target == "text_encoder":
        bare = tools.convert_state_dict_to_peft(tools.convert_state_dict_to_diffusers(bare))
        if not hasattr(network, "text_model"):
            bare = {key.removeprefix("text_model."): tensor for key, tensor in bare.items()}
    elif not any("lora_A" in key for key in bare):
        bare = tools.convert_unet_state_dict_to_peft(bare)
    return {f"{target}.{key}": tensor for key, tensor in bare.items()}


def _check_fit(tensors: Mapping[str, Any], target: str, network: Any, lora: Lora, backbone: Any) -> None:
    """Every tensor belongs to a layer there is, and has its size."""
    layers = dict(network.named_modules())
    misfits = []
    for key, tensor in tensors.items():
        found = TENSORS.search(key)
        layer = layers.get(key[: found.start()].removeprefix(f"{target}.")) if found else None
        layer = getattr(layer, "base_layer", layer)  # where another LoRA is in already
        weight = getattr(layer, "weight", None)
        if found is None or weight is None or weight.ndim < 2:
            misfits.append(key)
        elif found[2] == "weight" and tensor.shape[found[1] == "lora_A"] != weight.shape[found[1] == "lora_A"]:
            raise KinemaError(
                f"LoRA {lora.path!r} has {key} of size {tuple(tensor.shape)} for a layer of "
                f"{tuple(weight.shape)} in model {backbone.name!r}; it was made for another model"
            )
    if misfits or not tensors:
        _misfit(lora, backbone, misfits)


def _misfit(lora: Lora, backbone: Any, keys: Sequence[str]) -> None:
    what = f"{len(keys)} keys that fit nothing in model {backbone.name!r}, first {keys[0]}" if keys else "no keys"
    raise KinemaError(f"LoRA {lora.path!r} has {what}; it was made for another model")


def _cut(tensors: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}


def _part(table: Mapping[str, Any] | None, source: str, target: str) -> dict[str, Any] | None:
    return {f"{target}.{key}": value for key, value in _cut(table, source).items()} or None if table else None


def _tools() -> Any:
    """diffusers.utils, which is not typed."""
    return importlib.import_module("diffusers.utils")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """diffusers logs what it then raises, and peft warns of a second LoRA; one sentence is enough."""
    logging = _tools().logging
    heard = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(heard)
