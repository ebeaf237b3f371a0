"""The fields of a configuration have the types that they are annotated with, whoever builds it."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from capsnet._support.errors import CapsnetError, shown


def settle(config: Any) -> None:
    """Bring a frozen dataclass's fields to their annotated types, or refuse them; for `__post_init__`.

    What is a number or a row of numbers in other clothes (NumPy's and PyTorch's, a list) becomes Python's own
    number or tuple, so that config.json can hold it and reading it back gives an equal configuration. Nothing
    else is converted: True is no number, "10" neither, and 2.0 is no integer.

    Raises:
        CapsnetError: naming the first field whose value is of another type or no option that there is.
    """
    from pydantic import ValidationError

    kind = type(config)
    for name, adapter in _adapters(kind).items():  # type: ignore[arg-type]  # a class is hashable
        value = getattr(config, name)
        try:
            settled = adapter.validate_python(_plain(value), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in (name, *first["loc"]))
            reason = first["msg"].partition("\n")[0]
            if reason.startswith("Input"):
                reason += f", not {_said(first['input'])}"
            raise CapsnetError(f"{kind.__name__}: {place}: {shown(reason)}") from error
        object.__setattr__(config, name, settled)


@cache
def _adapters(kind: type[Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    types = get_type_hints(kind)
    return {field.name: TypeAdapter(types[field.name]) for field in fields(kind)}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # a number of NumPy's or PyTorch's
        return value.item()
    return value


def _said(value: Any) -> str:
    """The value if it is short, else what it is: an integer can have more digits than can be printed."""
    if value is None or isinstance(value, str | bool | float):
        return shown(repr(value))[:60]
    return f"a value of type {type(value).__name__}"
