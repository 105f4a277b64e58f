"""Recipes: one readable YAML file with all settings of a training, read into frozen dataclasses.

A recipe is a mapping of sections (`stage1`, `stage2`, ...); each section is one settings dataclass, which may
nest others (every stage nests `TrainerSettings` as `trainer`). Unknown keys and values of the wrong type are
refused with the place and what is allowed. Single values are replaced with `section.key=value`, for example
`stage2.trainer.steps=100`.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def read_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of a recipe as plain mappings, with overrides applied.

    `recipe` is the name of a recipe of the package ("mini") or the path of a YAML file; an override is
    "section.key=value" with the value in YAML. Raises ValueError for a missing or broken file and for an
    override that names no section of the recipe.
    """
    path = Path(recipe) if str(recipe).endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ValueError(f"there is no recipe {str(recipe)!r}; use one of {known}, or the path of a .yaml file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} must be a mapping of sections, and is a {type(data).__name__}")
    for override in overrides:
        _override(data, override)
    return data


def load_section(recipe: str | Path, section: str, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """One section of a recipe as the dataclass `cls`, defaults filled in; see `read_recipe`."""
    data = read_recipe(recipe, overrides)
    if section not in data:
        raise ValueError(f"the recipe has no section {section!r}; it has {', '.join(data)}")
    return build(cls, data[section] or {}, section)


def build(cls: type[T], data: Mapping[str, Any], where: str = "recipe") -> T:
    """A (nested) dataclass from a mapping; `where` is the place named in errors."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be a mapping, and is {data!r}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise ValueError(f"{where} has no setting {key!r}; it has {', '.join(fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} needs {', '.join(missing)}")
    return cls(**{key: _convert(value, hints[key], f"{where}.{key}") for key, value in data.items()})


def _override(data: dict[str, Any], override: str) -> None:
    """Write "section.key=value" into the plain mapping."""
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ValueError(f"the override {override!r} is not of the form section.key=value")
    if keys[0] not in data:
        raise ValueError(f"the override {override!r} names no section; use one of {', '.join(data)}")
    node = data
    for key in keys[:-1]:
        if node.get(key) is None:
            node[key] = {}
        node = node[key]
        if not isinstance(node, dict):
            raise ValueError(f"the override {override!r} goes into {key!r}, which is a single value")
    try:
        node[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"the value of the override {override!r} is not valid YAML") from None


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type `hint`, or ValueError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), where)
    if origin is typing.Literal:
        if value not in args:
            raise ValueError(f"{where} is {value!r}; use one of {', '.join(map(repr, args))}")
        return value
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} is {value!r}; use a list")
        if origin is list or (len(args) == 2 and args[1] is Ellipsis):
            return origin(_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise ValueError(f"{where} is {value!r}; use a list of {len(args)}")
        return tuple(_convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is {value!r}; use a mapping")
        return {_convert(k, args[0], where): _convert(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value or {}, where)
    return _scalar(value, hint, where)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML 1.1 reads 2e-3 (no dot) as a string
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif hint is int and not isinstance(value, bool) and _is_whole(value):
        return int(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    elif hint is Path and isinstance(value, str):
        return Path(value)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}
    raise ValueError(f"{where} is {value!r}; use {names.get(hint, getattr(hint, '__name__', str(hint)))}")
