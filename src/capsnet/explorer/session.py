"""What the explorer shows: a capsule network, a control to set beside it, digits to pick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.files import read_json
from capsnet.data import Dataset, load
from capsnet.data.augmentation import Standardize
from capsnet.explorer.geometry import main_directions
from capsnet.inference.prediction import class_names
from capsnet.models import CapsNet, load_model
from capsnet.models.base import find_pretrained, read_model_config
from capsnet.models.cnn import CNN

#: The control that comes with the package, shown beside any model of the same images and classes.
CONTROL = "cnn-mnist"
#: Digits that can be picked, and that show what differs between digits.
EXAMPLES = 200
PROBES = 32
OVERVIEW_CHANNELS = 16


@dataclass(frozen=True, eq=False)
class Session:
    """One model and all that is shown with it."""

    run: str
    folder: Path
    model: CapsNet
    class_names: tuple[str, ...]
    about: dict[str, Any]
    """What config.json says beside the model."""
    result: dict[str, Any]
    """result.json, empty if there is none."""
    dataset: Dataset | None
    control: CNN | None
    control_result: dict[str, Any]
    pictures: UInt8[Tensor, "examples channels height width"]
    labels: list[list[int]]
    planes: Float[Tensor, "types dim 2"] = field(init=False)
    """For each type of primary capsule, the two directions in which it varies most between digits."""
    channels: list[int] = field(init=False)
    """Conv1 maps that vary most between digits."""

    def __post_init__(self) -> None:
        shape = self.model.config.image_shape
        probes = self.pictures[:PROBES].float() / 255
        if not len(probes):  # nothing to pick: noise shows as well where the network is lively
            probes = torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))
        trace = self.model.trace(self.network_input(probes))
        types = self.model.config.primary_types
        by_type = trace.primary.unflatten(1, (types, -1)).transpose(0, 1).flatten(1, 2)  # type: ignore[no-untyped-call]
        object.__setattr__(self, "planes", main_directions(by_type - by_type.mean(dim=1, keepdim=True)))
        variation = trace.maps.std(dim=0).mean(dim=(1, 2))
        channels = variation.topk(min(OVERVIEW_CHANNELS, len(variation))).indices
        object.__setattr__(self, "channels", sorted(channels.tolist()))

    def network_input(self, images: Float[Tensor, "batch channels height width"]) -> Tensor:
        """Images in [0, 1] as the model was trained to see them."""
        return Standardize()(images) if getattr(self._test, "standardize", False) else images

    @property
    def _test(self) -> object:
        return self.dataset.test if self.dataset else None

    @property
    def trained_on(self) -> str | None:
        """Name of the training data, if the run says so."""
        training = self.about.get("training")
        name = training.get("data") if isinstance(training, dict) else None
        return name if isinstance(name, str) else None

    @property
    def provenance(self) -> str:
        """Where the digits come from, and whether the model has seen them."""
        if self.dataset is None:
            return "No examples: the data that this model was trained on are not on this machine."
        seen = self.trained_on == "mnist" and self.dataset.name == "mnist5k"
        note = " The model was trained on all of MNIST's training set, so it has seen these digits."
        return self.dataset.provenance + (note if seen else "")


def open_session(run: str) -> Session:
    """Load a model and what goes with it. Nothing is fetched from a network, except a model named on the Hub.

    Raises:
        CapsnetError: no such run, a broken one, or one that is no capsule network.
    """
    folder = find_pretrained(run)
    model = load_model(folder)
    if not isinstance(model, CapsNet):
        raise CapsnetError(
            f"{run} is a {model.architecture}; the explorer shows capsule networks: choose another RUN"
        )
    about = read_model_config(folder)
    dataset = _dataset(about, model)
    pictures, labels = _pictures(dataset, model)
    control, control_result = _control(model, class_names(folder, model))
    return Session(
        Path(run).name, folder, model, class_names(folder, model), about, read_result(folder), dataset,
        control, control_result, pictures, labels,
    )  # fmt: skip


def read_result(folder: Path) -> dict[str, Any]:
    """A run's result.json, or nothing."""
    path = folder / "result.json"
    result = read_json(path) if path.exists() else {}
    return result if isinstance(result, dict) else {}


def _dataset(about: dict[str, Any], model: CapsNet) -> Dataset | None:
    """The data the model was trained on if they are here; else the digits that need no network."""
    training = about.get("training")
    name = training.get("data") if isinstance(training, dict) else None
    fits = model.config.image_shape == (1, 28, 28) and model.config.classes == 10
    side = model.config.image_shape[1]
    for candidate in [name, "mnist5k"] if fits else [name]:
        if not isinstance(candidate, str):
            continue
        try:
            dataset = load(
                candidate, download=False, image_size=side if candidate.startswith("folder:") else None
            )
        except CapsnetError:
            continue
        if (
            tuple(dataset.image_shape) == model.config.image_shape
            and len(dataset.classes) == model.config.classes
        ):
            return dataset
    return None


def _pictures(dataset: Dataset | None, model: CapsNet) -> tuple[Tensor, list[list[int]]]:
    if dataset is None:
        return torch.zeros(0, *model.config.image_shape, dtype=torch.uint8), []
    test = dataset.test
    indices = torch.arange(min(EXAMPLES, len(test)))
    batch = test.batch(indices, torch.full((len(indices), test.draws), 0.5) if test.draws else None)
    # Of overlapping digits the first alone: visitors put two on top of each other themselves.
    images = batch.originals[:, 0].clamp(0, 1)
    return (images * 255).round().to(torch.uint8), batch.labels[:, :1].tolist()


def _control(model: CapsNet, names: tuple[str, ...]) -> tuple[CNN | None, dict[str, Any]]:
    try:
        folder = find_pretrained(CONTROL)
        control = load_model(folder)
    except CapsnetError:
        return None, {}
    if not isinstance(control, CNN):
        return None, {}
    same = tuple(control.config.image_shape) == model.config.image_shape
    return (control, read_result(folder)) if same and class_names(folder, control) == names else (None, {})
