"""A run's resumable state: one file with one checksum, and the one before it.

state.safetensors          the last completed save
state-before.safetensors   the save before that, for the day the disk damages the last one
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
class State:
    """All that the next step depends on."""

    tensors: dict[str, Tensor]
    position: dict[str, Any]
    """`step`: steps done; `seconds`: of training until then."""
    notice: str = ""
    """Why this is not the last save, if it is not."""


def save_state(
    folder: Path, tensors: Mapping[str, Tensor], position: Mapping[str, Any], keep_newest: bool = True
) -> None:
    """Save as one file; what was the newest state stays as the one before.

    Args:
        folder: of the run.
        tensors: weights, moments, random states.
        position: where the training is; becomes JSON.
        keep_newest: False if the newest is damaged: it must not push out the good one before it.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(position)
    about = {"position": text, "checksum": checksum(whole, text)}
    save_weights(whole, folder / NEWEST, about, keep_old=folder / BEFORE if keep_newest else None)


def load_state(folder: Path) -> State | None:
    """The last completed save, or the one before if that is damaged; None if there was none yet.

    Raises:
        CapsnetError: no save can be read.
    """
    damage = ""
    for name in (NEWEST, BEFORE):
        if (folder / name).exists():
            try:
                state = _read(folder / name)
            except CapsnetError as error:
                damage = damage or str(error)
                continue
            return State(state.tensors, state.position, damage)
    if damage:
        raise CapsnetError(
            f"{folder} cannot be continued: {damage}, and no sound save is left; start it again with another --out"
        )
    return None


def remove_states(folder: Path) -> None:
    """Of a run that has ended."""
    for name in (NEWEST, BEFORE):
        (folder / name).unlink(missing_ok=True)


def checksum(tensors: Mapping[str, Tensor], position: str) -> str:
    """SHA-256 over the position and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(position.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> State:
    tensors, about = read_weights(path)
    text = about.get("position", "")
    if about.get("checksum") != checksum(tensors, text):
        raise CapsnetError(f"{path} is damaged (its checksum differs)")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise CapsnetError(f"{path} is damaged (numbers in it are NaN or infinite)")
    try:
        position = parse_json(text)
        if not (type(position["step"]) is int and position["step"] >= 0 and position["seconds"] >= 0):
            raise ValueError
        return State(
            tensors, {**position, "step": int(position["step"]), "seconds": float(position["seconds"])}
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CapsnetError(f"{path} is damaged (no position in it)") from error
