"""How large a network may be: more is a mistake or an attack, and is refused before any memory is asked for."""

from __future__ import annotations

from collections.abc import Mapping

from capsnet._support.errors import CapsnetError

MAX_PARAMETERS = 2**31
#: Of the largest tensor on the way of one image: 1 GiB in float32.
MAX_NUMBERS = 2**28
MAX_LAYERS = 100


def check_sizes(owner: str, sizes: Mapping[str, tuple[int, ...]], layers: Mapping[str, int]) -> None:
    """Each size by itself, so that whatever is computed from them is a number that can be printed.

    Raises:
        CapsnetError: a size is below 1 or above `MAX_PARAMETERS`; too many layers.
    """
    for name, values in sizes.items():
        if min(values, default=1) < 1:
            said = values[0] if len(values) == 1 else values
            raise CapsnetError(f"{owner}: {name} is {said}; it must be at least 1")
        if max(values, default=1) > MAX_PARAMETERS:
            raise CapsnetError(f"{owner}: {name} is absurdly large; more than {MAX_PARAMETERS:,} is refused")
    for name, count in layers.items():
        if count > MAX_LAYERS:
            raise CapsnetError(f"{owner}: {name} has {count:,} layers; more than {MAX_LAYERS} are refused")


def check_totals(owner: str, parameters: int, largest: int) -> None:
    """What the sizes amount to.

    Args:
        owner: the configuration's name.
        parameters: trained numbers.
        largest: numbers in the largest tensor on the way of one image.

    Raises:
        CapsnetError: more than a machine should be asked for.
    """
    if parameters > MAX_PARAMETERS:
        raise CapsnetError(
            f"{owner}: this network would have {parameters:,} parameters; "
            f"more than {MAX_PARAMETERS:,} is refused"
        )
    if largest > MAX_NUMBERS:
        raise CapsnetError(
            f"{owner}: one image would take {largest:,} numbers on its way; "
            f"more than {MAX_NUMBERS:,} is refused"
        )
