"""Models by name: CapsNet, other capsule networks, and the controls they are measured against.

base.py       the base class of all models; config.py, the base of all configurations
capsnet.py    the paper's network, readable from top to bottom
capsule_classifier.py  what CapsNet and efficient_capsnet.py share: margin loss and decoder
pose_network.py        what matrix_capsules.py and variational_bayes.py share: capsules with pose and activation
inverted_attention.py  capsules with inverted attention, on the backbone of residual.py
authors.py    weights under their authors' names
cnn.py        the controls
protocols.py  the interfaces that reports, the explorer and experiments use
registry.py   architectures by name; `register` adds one, also from outside the package
saved.py      folders with config.json and model.safetensors
cost.py       parameters, multiply-adds and memory

May import `layers`, `data` and everything below them. Begin with `capsnet.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import configuration
from capsnet.models.base import Classifier
from capsnet.models.capsnet import CapsNet, CapsNetConfig, CapsNetTrace
from capsnet.models.cnn import CNN, CNNConfig
from capsnet.models.config import ClassifierConfig
from capsnet.models.registry import MODELS, register
from capsnet.models.saved import SavedModel

__all__ = [
    "CNN",
    "MODELS",
    "CNNConfig",
    "CapsNet",
    "CapsNetConfig",
    "CapsNetTrace",
    "Classifier",
    "ClassifierConfig",
    "SavedModel",
    "build_model",
    "configuration",
    "load_model",
    "register",
]


def load_model(
    name: str | Path | SavedModel, *, device: str | torch.device = "cpu", **hub: Any
) -> Classifier:
    """Load a saved model of any registered architecture, in evaluation mode.

    Args:
        name: as for `CapsNet.from_pretrained`, or an opened `SavedModel`.
        device: the model's device.
        hub: revision, token, cache_dir, local_files_only, for a model on the Hugging Face Hub.

    Raises:
        CapsnetError: the model does not exist, a file is damaged, or the architecture is unknown.
    """
    saved = name if isinstance(name, SavedModel) else SavedModel.open(name, **hub)
    return _architecture(saved).from_saved(saved).to(device)


def build_model(name: str | Path | SavedModel, seed: int) -> Classifier:
    """Return an untrained model as config.json describes it, initialised with `seed`.

    Raises:
        CapsnetError: config.json does not describe a model of a registered architecture.
    """
    saved = name if isinstance(name, SavedModel) else SavedModel.open(name)
    config: ClassifierConfig = saved.config(_architecture(saved).config_class)
    torch.manual_seed(seed)
    model: Classifier = config.build()
    return model


def _architecture(saved: SavedModel) -> type[Classifier]:
    try:
        return MODELS.get(saved.architecture)
    except CapsnetError as error:
        raise CapsnetError(f"{saved.path}: {error}") from error
