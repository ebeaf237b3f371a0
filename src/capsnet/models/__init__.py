"""Models by name: CapsNet, and the controls it is measured against."""

from __future__ import annotations

from pathlib import Path

from capsnet.errors import CapsnetError
from capsnet.models.base import Classifier, find_pretrained, read_model_config
from capsnet.models.capsnet import CapsNet, CapsNetConfig, CapsNetTrace

__all__ = ["ARCHITECTURES", "CapsNet", "CapsNetConfig", "CapsNetTrace", "Classifier", "load_model"]

#: Every architecture, by the name that config.json holds.
ARCHITECTURES: dict[str, type[Classifier]] = {CapsNet.architecture: CapsNet}


def load_model(name: str | Path, *, device: str = "cpu") -> Classifier:
    """Load a saved model of whichever architecture, as `CapsNet.from_pretrained` does for its own.

    Raises:
        CapsnetError: no such model, a broken file, or an unknown architecture.
    """
    folder = find_pretrained(name)
    config = read_model_config(folder)
    architecture = ARCHITECTURES.get(config["architecture"])
    if architecture is None:
        raise CapsnetError(
            f"{folder / 'config.json'}: architecture {config['architecture']!r} is none of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return architecture.from_description(config, folder).to(device)
