"""What pydantic finds wrong with a request, told as kinema tells everything: in one plain sentence."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that pydantic found wrong, as one plain sentence with what is allowed."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "request"
    value, kind, context = first.get("input"), first["type"], first.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        return f"{field} is {shown}; use {_range(model, field)}"
    if kind == "string_too_short":
        return f"{field} is empty; give it or leave it out"
    if kind == "string_too_long":
        return f"{field} has {len(str(value))} characters; use at most {context['max_length']}"
    if kind == "value_error":
        return str(context.get("error", first["msg"]).__str__())
    if kind == "literal_error":
        return f"{field} is {shown}; use {context['expected']}"
    if kind == "missing":
        return f"{field} is missing; give it"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"there is no field {field!r} in a request; {_near(model, field)}"
    wanted = {
        "int": "a whole number",
        "bool": "true or false",
        "float": "a number",
        "string": "a text",
        "finite": "a finite number",
        "tuple": "a list",
        "dict": "an object",
    }
    expected = next((words for prefix, words in wanted.items() if kind.startswith(prefix)), None)
    return f"{field} is {shown}; use {expected}" if expected else f"{field} is {shown}: {first['msg']}"


def _range(model: type[BaseModel], field: str) -> str:
    """The range of a number, for example "1 to 1000"."""
    bounds = {
        key: getattr(m, key)
        for m in model.model_fields[field].metadata
        for key in ("ge", "gt", "le")
        if hasattr(m, key)
    }
    return (
        f"more than {bounds['gt']}, at most {bounds['le']}" if "gt" in bounds else f"{bounds['ge']} to {bounds['le']}"
    )


def _near(model: type[BaseModel], field: str) -> str:
    import difflib

    near = difflib.get_close_matches(field, list(model.model_fields), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(model.model_fields)}"
