"""Models by name: CapsNet, and the controls it is measured against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from capsnet._support.errors import CapsnetError
from capsnet.models.base import Classifier, find_pretrained, parse_config, read_model_config
from capsnet.models.capsnet import CapsNet, CapsNetConfig, CapsNetTrace
from capsnet.models.cnn import CNN, CNNConfig

__all__ = [
    "ARCHITECTURES",
    "CNN",
    "CNNConfig",
    "CapsNet",
    "CapsNetConfig",
    "CapsNetTrace",
    "Classifier",
    "build_model",
    "load_model",
]

#: Every architecture, by the name that config.json holds.
ARCHITECTURES: dict[str, type[Classifier]] = {CapsNet.architecture: CapsNet, CNN.architecture: CNN}


def load_model(name: str | Path, *, device: str | torch.device = "cpu") -> Classifier:
    """Load a saved model of whichever architecture, as `CapsNet.from_pretrained` does for its own.

    Raises:
        CapsnetError: no such model, a broken file, or an unknown architecture.
    """
    folder = find_pretrained(name)
    description = read_model_config(folder)
    return find_architecture(description, folder).from_description(description, folder).to(device)


def build_model(folder: Path, seed: int) -> Classifier:
    """An untrained model as a folder's config.json describes it, its weights drawn from `seed`.

    Raises:
        CapsnetError: the file is missing, or describes no model of this package.
    """
    description = read_model_config(folder)
    architecture = find_architecture(description, folder)
    torch.manual_seed(seed)
    return architecture(parse_config(architecture.config_class, description["model"], folder / "config.json"))


def find_architecture(description: dict[str, Any], folder: Path) -> type[Classifier]:
    """The class that config.json names."""
    architecture = ARCHITECTURES.get(description["architecture"])
    if architecture is None:
        raise CapsnetError(
            f"{folder / 'config.json'}: architecture {description['architecture']!r} is none of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return architecture
