"""`--set PART.FIELD=VALUE`: set any field of the typed configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from capsnet._support.errors import CapsnetError, did_you_mean, shown

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field of the configuration, as model.FIELD=VALUE or train.FIELD=VALUE. Can be repeated.",
    ),
]
#: Parts of a run's configuration: the architecture's own, and TrainConfig.
PARTS = ("model", "train")


@dataclass(frozen=True)
class Settings:
    """Fields and values of `--set` as text, until the model's type is known."""

    texts: dict[str, dict[str, str]]
    """Part → field → value."""

    def read(self, part: str, config_class: type[Any]) -> dict[str, Any]:
        """Return the values of one part, checked against the types of its configuration.

        Raises:
            CapsnetError: an unknown field, a wrong type, or a value out of bounds.
        """
        return {name: _read(part, name, text, config_class) for name, text in self.texts[part].items()}


def parse_settings(
    items: Sequence[str] | None, context: typer.Context, options: Mapping[str, str]
) -> Settings:
    """Split the values of `--set` into part, field and text.

    Args:
        items: the values, as the command line has them.
        context: the command's context.
        options: other parameters of the command → the fields that they set, such as "train.seed".

    Raises:
        CapsnetError: an item is not of the form PART.FIELD=VALUE, its part is unknown, or a field is set twice.
    """
    given = {
        options[parameter.name]: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in options and is_given(context, parameter.name)
    }
    settings = Settings({part: {} for part in PARTS})
    for item in items or ():
        where, equals, text = item.partition("=")
        part, dot, name = where.strip().partition(".")
        if not equals or not dot:
            raise CapsnetError(
                f"--set {shown(item)[:100]}: write model.FIELD=VALUE or train.FIELD=VALUE, as in "
                "--set model.primary_dim=16"
            )
        if part not in PARTS:
            raise CapsnetError(
                f"--set {shown(where)[:100]}: the part is model or train, not {shown(part)[:50]!r}"
                f"{did_you_mean(part, PARTS)}"
            )
        texts = settings.texts[part]
        if name in texts:
            raise CapsnetError(f"--set {shown(where)[:100]} is given twice; give it once")
        if (option := given.get(f"{part}.{name}")) is not None:
            raise CapsnetError(f"--set {part}.{name} and {option} set the same field; give one of them")
        texts[name] = text
    return settings


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _read(part: str, name: str, text: str, config_class: type[Any]) -> Any:
    from capsnet._support.validation import parse_setting

    try:
        return parse_setting(config_class, name, text)
    except CapsnetError as error:
        said, own = str(error), f"{config_class.__name__}: {name}"
        rest = said.removeprefix(own) if said.startswith(own) else f": {said}"
        raise CapsnetError(f"--set {part}.{shown(name)[:100]}{rest}") from error
