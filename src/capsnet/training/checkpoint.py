"""Checkpoints of a run: each is one file with a checksum. The last two are kept.

state.safetensors          the newest checkpoint
state-before.safetensors   the one before it, in case the newest is damaged on disk
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.files import parse_json
from capsnet._support.weights import read_weights, save_weights

NEWEST = "state.safetensors"
BEFORE = "state-before.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that the next step depends on."""

    tensors: dict[str, Tensor]
    position: dict[str, Any]
    """`step`: number of finished steps. `seconds`: training time until then."""
    notice: str = ""
    """Why this is not the newest checkpoint; empty if it is."""


def save_checkpoint(
    folder: Path, tensors: Mapping[str, Tensor], position: Mapping[str, Any], keep_newest: bool = True
) -> None:
    """Write a new checkpoint and keep the previous one.

    Args:
        folder: the run's folder.
        tensors: weights, moments, random states.
        position: the position in the training, as JSON values.
        keep_newest: False if the newest checkpoint is damaged, so that it does not replace the good one before it.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(position)
    about = {"position": text, "checksum": checksum(whole, text)}
    save_weights(whole, folder / NEWEST, about, keep_old=folder / BEFORE if keep_newest else None)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint, or the one before if the newest is damaged.

    Returns:
        The checkpoint; None if there is none yet.

    Raises:
        CapsnetError: there are checkpoints, but none can be read.
    """
    damage = ""
    for name in (NEWEST, BEFORE):
        if (folder / name).exists():
            try:
                state = _read(folder / name)
            except CapsnetError as error:
                damage = damage or str(error)
                continue
            return Checkpoint(state.tensors, state.position, damage)
    if damage:
        raise CapsnetError(
            f"{folder} cannot be resumed: {damage}, and no good checkpoint is left; start again with another --out"
        )
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)


def checksum(tensors: Mapping[str, Tensor], position: str) -> str:
    """Return the SHA-256 of the position and each tensor's name, type, shape, bytes."""
    digest = hashlib.sha256(position.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> Checkpoint:
    tensors, about = read_weights(path)
    text = about.get("position", "")
    if about.get("checksum") != checksum(tensors, text):
        raise CapsnetError(f"{path} is damaged (its checksum differs)")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise CapsnetError(f"{path} is damaged (it holds NaN or infinity)")
    try:
        position = parse_json(text)
        if not (type(position["step"]) is int and position["step"] >= 0 and position["seconds"] >= 0):
            raise ValueError
        return Checkpoint(
            tensors, {**position, "step": int(position["step"]), "seconds": float(position["seconds"])}
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CapsnetError(f"{path} is damaged (it has no position)") from error
