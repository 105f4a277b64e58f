"""From a name to a model: an embedded model, a folder in diffusers layout, or a hub id."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from kinema.backbones.folder import INDEX, Folder
from kinema.core.errors import KinemaError
from kinema.request import ContextParallel, Offload, Placement, Quantization, loras

if TYPE_CHECKING:
    from kinema.backbones.plan import Planner
    from kinema.backbones.protocol import Backbone

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# All that is ever fetched of a part: configurations, tokenizers and safetensors. No code, no pickles.
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")


def load(
    model: str | os.PathLike[str] = "mini",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    lora: Any = (),
    *,
    offload: Offload | None = None,
    quantization: Quantization | None = None,
    text_quantization: Quantization | None = None,
    layerwise_casting: bool = False,
    vae_tiling: bool = False,
    compile: bool = False,
    context_parallel: ContextParallel | None = None,
) -> Backbone:
    """Loads a video model, ready to sample.

    model: the name of an embedded model, a folder in diffusers layout, or a hub id ("owner/name"). Only safetensors
    are read, and no code that comes with a model is run.
    device: None takes the first of cuda, mps and cpu that there is.
    dtype: of the transformer and the text encoder; None is bfloat16 on a GPU of kind cuda that computes in it, and
    float32 elsewhere, so that it depends on the kind of machine only. The autoencoder always computes in float32.
    lora: one or several LoRA files: "PATH", "PATH:weight", (path, weight) or `kinema.request.Lora`; see docs/cli.md.
    offload, quantization, text_quantization, layerwise_casting, vae_tiling, compile: for models that do not fit
    otherwise, and for speed; see docs/memory.md.
    context_parallel: "ulysses" under torchrun, one video on several devices; see docs/several-devices.md.
    Raises: KinemaError, one sentence, when there is no such model, it is of no family kinema knows, or it is damaged.
    """
    from kinema.backbones.memory import Placed, check, place

    where = pick_device(device)
    placement = Placement(
        offload=offload,
        quantization=quantization,
        text_quantization=text_quantization,
        layerwise_casting=layerwise_casting,
        vae_tiling=vae_tiling,
        compile=compile,
        context_parallel=context_parallel,
    )
    if context_parallel is not None:
        from kinema.backbones import parallel

        where = parallel.join(where)
    check(placement, where)
    wanted = loras(lora)
    if wanted and offload == "stream":
        raise KinemaError("offload 'stream' keeps no weights that a LoRA could be put into; leave lora out")
    if wanted:
        from kinema.backbones.lora import check_peft, hash_file, put_in

        check_peft()
        for one in wanted:  # a missing file is known before gigabytes are read
            hash_file(one)
    folder = Folder.open(locate(os.fspath(model)), name=os.fspath(model))
    if placement.offload == "stream":
        from kinema.backbones.streaming import Streamed

        folder = Streamed.of(folder)
    else:
        folder = Placed.of(folder, placement)
    backbone: Backbone = _family(folder).open_folder(folder, where, pick_dtype(dtype, where))
    if wanted:
        put_in(backbone, wanted)
    place(backbone, placement, where)
    if context_parallel is not None:
        parallel.spread(backbone)
    return backbone


def embedded() -> dict[str, Path]:
    """The models that ship inside the package: name -> folder."""
    root = Path(__file__).parent.parent / "weights"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{INDEX}"))}


def checkpoints() -> list[str]:
    """Hub ids of the checkpoints that the families are written for."""
    return [id for family in families() for id in family.CHECKPOINTS]


def families() -> list[ModuleType]:
    """The modules of this folder that open models: those with PIPELINES, the pipeline classes they know."""
    package = importlib.import_module("kinema.backbones")
    modules = [importlib.import_module(f"kinema.backbones.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return [module for module in modules if hasattr(module, "PIPELINES")]


def planner(
    model: str | os.PathLike[str] = "mini",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> Planner:
    """A model opened without its weights, to see what it would need; the arguments are those of `load`.

    Of a model on the hub only its JSON files are fetched. Raises: KinemaError, as `load` does.
    """
    from kinema.backbones.plan import Planner

    where = pick_device(device)
    folder = Folder.open(locate(os.fspath(model), ("*.json",)), name=os.fspath(model))
    return Planner(folder, where, pick_dtype(dtype, where), _family(folder))


def locate(model: str, files: tuple[str, ...] = HUB_FILES) -> Path:
    """The folder of a model; fetches `files` of it from the hub when it is neither embedded nor a folder."""
    ours = embedded()
    if model in ours:
        return ours[model]
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise KinemaError(f"model {model!r} is a file; give the folder that holds {INDEX}")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model):
        return _from_hub(model, files)
    raise KinemaError(f"there is no model {model!r}: it is no embedded model and no folder; {_hint(model)}")


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device meant by `device`. Raises KinemaError when this machine does not have it."""
    if device is None:
        names = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
        return torch.device(next(name for name, there in names if there))
    try:
        found = torch.device(device)
        torch.empty(1, device=found).item()  # no number comes back from torch's device "meta"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise KinemaError(f"device {str(device)!r} is not on this machine; use cpu, or leave device out") from error
    return found


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number type meant by `dtype`. Raises KinemaError for one that kinema does not compute in."""
    if dtype is None:
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise KinemaError(f"dtype is {str(dtype)!r}; use {', '.join(DTYPES)}")
    return found


def _family(folder: Folder) -> ModuleType:
    known = {name: family for family in families() for name in family.PIPELINES}
    if folder.pipeline not in known:
        raise KinemaError(
            f"model {folder.name!r} is a {folder.pipeline}, which kinema cannot run; it runs {', '.join(sorted(known))}"
        )
    return known[folder.pipeline]


def _from_hub(model: str, files: tuple[str, ...]) -> Path:
    """Fetches the index first, so that a model of no known family costs kilobytes, then the rest."""
    from huggingface_hub import hf_hub_download, snapshot_download

    with fetching(f"there is no model {model!r}: it is no embedded model, no folder", lambda: f"; {_hint(model)}"):
        folder = Folder.open(Path(hf_hub_download(model, INDEX)).parent, name=model)
        _family(folder)
        # Only of the parts: beside them many keep the same weights again in the layouts of other programs.
        wanted = [f"{part}/{file}" for part in folder.index if folder.declared(part) for file in files]
        return Path(snapshot_download(model, allow_patterns=[INDEX, "card.json", *wanted]))


@contextmanager
def fetching(missing: str, advice: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns what the hub refuses into one sentence: what is `missing`, the reason, and advice."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
        return
    except LocalEntryNotFoundError:
        why = "the hub cannot be reached and there is no copy on this machine"
    except (HfHubHTTPError, HFValidationError) as error:
        why = f"the hub answered: {str(error).strip().splitlines()[0].rstrip('.')}"
    except KinemaError:
        raise
    except OSError as error:
        why = f"fetching it failed: {error.strerror or error}"
    raise KinemaError(f"{missing}, and {why}{advice()}")


def _hint(model: str) -> str:
    ours = list(embedded())
    near = difflib.get_close_matches(model, [*ours, *checkpoints()], n=1, cutoff=0.6)
    meant = f"did you mean {near[0]!r}? " if near and near[0] != model else ""
    return f"{meant}embedded models: {', '.join(ours) or 'none in this installation'}"
