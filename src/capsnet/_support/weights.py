"""Read and write tensors as safetensors, which cannot run code as pickles can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import write_bytes


def save_weights(
    tensors: Mapping[str, Tensor],
    path: Path,
    metadata: dict[str, str] | None = None,
    keep_old: Path | None = None,
) -> None:
    """Write tensors to a safetensors file atomically; see `write_atomically`."""
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(whole, metadata or {"format": "pt"})
    write_bytes(path, content, keep_old)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Raises:
        CapsnetError: the file is missing, truncated, or not a safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def count_weights(path: Path) -> int:
    """Count the numbers in a safetensors file. Reads only its header.

    Raises:
        CapsnetError: as `read_weights`.
    """
    with _opened(path) as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """Return the current name of a weight; `prefixes` maps old prefixes to new ones."""
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def load_weights(model: nn.Module, path: Path, prefixes: Mapping[str, str] | None = None) -> None:
    """Load a file's weights into a model (any float type; converted to the model's).

    Args:
        model: receives the weights.
        path: the safetensors file.
        prefixes: see `renamed`.

    Raises:
        CapsnetError: the file is damaged, its names or shapes do not fit the model, or it holds NaN or infinity.
    """
    tensors, _ = read_weights(path)
    tensors = {renamed(name, prefixes or {}): tensor for name, tensor in tensors.items()}
    own = model.state_dict()
    if missing := sorted(own.keys() - tensors.keys()):
        raise CapsnetError(f"{path} does not fit its config.json: it has no {missing[0]!r}")
    if unknown := sorted(tensors.keys() - own.keys()):
        raise CapsnetError(
            f"{path} does not fit its config.json: {unknown[0][:100]!r} is not part of the model"
        )
    for name, tensor in own.items():
        found = tensors[name]
        if found.shape != tensor.shape:
            raise CapsnetError(
                f"{path} does not fit its config.json: {name} is {tuple(found.shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
        if found.is_floating_point() != tensor.is_floating_point():  # batch norm counts batches in integers
            raise CapsnetError(
                f"{path} does not fit its config.json: {name} is {found.dtype}, expected {tensor.dtype}"
            )
        tensors[name] = found.to(tensor.dtype)
        if not torch.isfinite(tensors[name]).all():
            raise CapsnetError(f"{path} holds NaN or infinity in {name}; the model is broken, train it again")
    model.load_state_dict(tensors)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise CapsnetError(f"{path} is missing; the training may not have written a checkpoint yet")
    try:
        if not path.is_file():  # reading a pipe would block
            raise ValueError("it is not a file")
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = shown(str(error).partition("\n")[0])[:200]
        raise CapsnetError(
            f"{path} is damaged and cannot be read ({reason}); restore it or train again"
        ) from error
