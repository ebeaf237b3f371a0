"""Configurations: frozen dataclasses whose values are checked by pydantic."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet._support.files import parse_json

C = TypeVar("C")

#: Upper limit of every size and of the number of parameters, checked before allocation.
MAX_PARAMETERS = 2**31
#: Upper limit of items in one field of an untrusted file. Checking a hundred thousand layers would take minutes.
MAX_ITEMS = 100

#: A width, a kernel, a stride: at least 1.
Size = Annotated[int, Field(ge=1, le=MAX_PARAMETERS)]
#: (channels, height, width).
ImageShape = tuple[Size, Size, Size]
#: Widths of some layers.
Widths = Annotated[tuple[Size, ...], Field(max_length=MAX_ITEMS)]
#: A weight of a loss: finite, at least 0.
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]

#: pydantic's kind of error → what the value must be.
_BOUNDS = {
    "greater_than_equal": "at least {ge:,}",
    "greater_than": "more than {gt:,}",
    "less_than_equal": "at most {le:,}",
    "less_than": "less than {lt:,}",
    "finite_number": "finite",
    "too_short": "of at least {min_length} item(s)",
    "too_long": "of at most {max_length} item(s)",
    "tuple_type": "a list",
}


@dataclass_transform(frozen_default=True)
def configuration(cls: type[C]) -> type[C]:
    """Make a frozen dataclass that checks its fields against their annotations.

    Use as a decorator. NumPy and PyTorch scalars and lists become Python numbers and tuples: JSON can hold these, and
    reading them back gives an equal configuration. Nothing else is converted: True and "10" are not accepted as
    numbers, and 2.0 is not accepted as an integer. `__post_init__` checks what concerns several fields.

    The class raises `CapsnetError` in one line: `CapsNetConfig: class_dim is 0; it must be at least 1`.
    """
    made: Any = dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))(cls)
    check = made.__init__

    @wraps(check)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            check(self, *map(_plain, args), **{name: _plain(value) for name, value in kwargs.items()})
        except ValidationError as error:
            raise _one_line(made, error) from error

    made.__init__ = __init__
    return made  # type: ignore[no-any-return]


def parse_config(config_class: type[C], values: dict[str, Any], where: Path) -> C:
    """Build a configuration from untrusted JSON values.

    Raises:
        CapsnetError: an unknown field, a wrong type, or a value out of bounds; names the file and the field.
    """
    for name, value in values.items():
        if isinstance(value, list) and len(value) > MAX_ITEMS and name != "class_names":
            raise CapsnetError(
                f"{where}: {shown(name)[:100]} has {len(value):,} items; it may have at most {MAX_ITEMS}"
            )
    try:
        config: C = _adapter(config_class).validate_json(json.dumps(values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise CapsnetError(f"{where}: {_one_line(config_class, error)}") from error
    return config


def parse_setting(config_class: type[Any], name: str, text: str) -> Any:
    """Read the value of one field from text.

    The text is JSON (`8`, `true`, `[512, 1024]`), `none`, a list without brackets (`512,1024`), or a word.

    >>> from capsnet.training.config import TrainConfig
    >>> parse_setting(TrainConfig, "batch_size", "64")
    64

    Raises:
        CapsnetError: the field is unknown, or the value has a wrong type or is out of bounds; one line, as from
            `configuration`.
    """
    fields = config_class.__dataclass_fields__
    if name not in fields:
        raise CapsnetError(
            f"{config_class.__name__} has no field {shown(name)[:100]!r}"
            f"{did_you_mean(name, fields) or '; it has ' + ', '.join(fields)}"
        )
    adapter = _field_adapters(config_class)[name]  # type: ignore[arg-type]
    first_error: ValidationError | None = None
    for value in _readings(text):
        try:
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            first_error = first_error or error
    assert first_error is not None
    raise _one_line(config_class, first_error, (name,)) from first_error


def _readings(text: str) -> list[Any]:
    """Return possible values of a text, the most likely first.

    The field's type decides: the same text may be a number for one field and a name for another.
    """
    readings = []
    with suppress(ValueError):
        readings.append(_word(text, strict=True))
    if "," in text:
        parts = text.split(",")
        readings += [[_word(part) for part in parts], parts]
    return [*readings, text, [_word(text)], [text]]


def _word(text: str, strict: bool = False) -> Any:
    """Parse JSON, `none`, `true` or `false`; return other text unchanged.

    Raises:
        ValueError: the text is something else, and `strict` is set.
    """
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return parse_json(text, finite=False)
    except ValueError:
        if strict:
            raise
        return text


@cache
def _field_adapters(config_class: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = config_class.__pydantic_fields__  # whose annotations pydantic has resolved
    kinds = {name: Annotated[field.annotation, Field(), *field.metadata] for name, field in found.items()}
    return {name: TypeAdapter(kind, config=ConfigDict(strict=True)) for name, kind in kinds.items()}  # type: ignore[arg-type]


@cache
def _adapter(config_class: type[Any]) -> Any:
    return TypeAdapter(config_class)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a scalar of NumPy or PyTorch
        return value.item()
    return value


def _one_line(kind: type[Any], error: ValidationError, within: tuple[str, ...] = ()) -> CapsnetError:
    """Return the first error in one line, or the `CapsnetError` of `__post_init__`."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, CapsnetError):
        return cause
    place_in: tuple[Any, ...] = (*within, *first["loc"])
    first_part, *rest = place_in
    if isinstance(first_part, int):  # an argument without a name
        first_part = list(kind.__dataclass_fields__)[first_part]
    place = shown(".".join(map(str, (first_part, *rest))))[:100]
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        fields = kind.__dataclass_fields__
        return CapsnetError(f"{kind.__name__} has no field {place!r}{did_you_mean(place, fields)}")
    if first["type"] in ("missing", "missing_argument"):
        return CapsnetError(f"{kind.__name__}: {place} is missing")
    bound = _BOUNDS.get(first["type"])
    must = (
        f"it must be {bound.format(**first.get('ctx', {}))}"
        if bound
        else shown(first["msg"]).replace("Input should", "it should")
    )
    return CapsnetError(f"{kind.__name__}: {place} is {_said(first['input'])}; {must}")


def _said(value: Any) -> str:
    """Return a short value as text, else its type: huge integers cannot be printed."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**12:
        return "too large" if value > 0 else "too small"
    if value is None or isinstance(value, str | bool | float | int):
        return shown(repr(value))[:60]
    return f"a value of type {type(value).__name__}"
