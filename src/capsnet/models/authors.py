"""Build a model from arrays under its authors' own names, so that published weights can be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet.models.base import Classifier

#: Own name of a weight → the authors' name, and how their array becomes ours.
Table = Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]


class Arrays:
    """Arrays by name. Missing names and other shapes are reported in one line.

    Args:
        arrays: NumPy arrays, tensors or lists by name, as from `numpy.load` or `state_dict`.
        prefix: part of a name that may be missing or present, such as "CapsNet.".
    """

    def __init__(self, arrays: Mapping[str, Any], prefix: str = "") -> None:
        self._arrays = {str(name).removeprefix(prefix): array for name, array in arrays.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def take(self, name: str, axes: int | None = None) -> Tensor:
        """Return an array as a tensor of floats.

        Raises:
            CapsnetError: there is no array of this name, it has another number of axes, or holds no numbers.
        """
        if name not in self._arrays:
            near = did_you_mean(name, list(self._arrays))
            raise CapsnetError(f"from_authors: the arrays have no {name!r}{near}")
        try:
            tensor = torch.as_tensor(self._arrays[name]).detach().float()
        except (TypeError, ValueError, RuntimeError) as error:
            raise CapsnetError(f"from_authors: {name!r} is not an array of numbers") from error
        if axes is not None and tensor.ndim != axes:
            raise CapsnetError(
                f"from_authors: {name!r} has shape {tuple(tensor.shape)}; it must have {axes} axes"
            )
        return tensor

    def numbered(self, pattern: str) -> list[str]:
        """Return the names that match, in the order of the number in the pattern's only group.

        Raises:
            CapsnetError: there is no such name.
        """
        found = [
            (int(match[1] or 0), name) for name in self._arrays if (match := re.fullmatch(pattern, name))
        ]
        return [name for _, name in sorted(found)]

    def fill(self, model: Classifier, table: Table) -> None:
        """Copy the arrays into the model's weights.

        Raises:
            CapsnetError: an array is missing, or has another shape than the model's other arrays ask for.
        """
        state = model.state_dict()
        for own, (name, convert) in table.items():
            array = self.take(name)
            try:
                tensor = convert(array)
            except (RuntimeError, IndexError, ValueError):
                tensor = None
            if tensor is None or tensor.shape != state[own].shape:
                becomes = (
                    "" if tensor is None or tensor.shape == array.shape else f" (here {tuple(tensor.shape)})"
                )
                raise CapsnetError(
                    f"from_authors: {name!r} has shape {tuple(array.shape)}{becomes}; expected "
                    f"{tuple(state[own].shape)} for {shown(own)}"
                )
            state[own] = tensor
        model.load_state_dict(state)


def same(tensor: Tensor) -> Tensor:
    """Return the array as it is."""
    return tensor


def flat(tensor: Tensor) -> Tensor:
    """Return the array without axes of size 1, and one axis at least."""
    return tensor.flatten()
