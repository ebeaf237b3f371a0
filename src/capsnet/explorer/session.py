"""Load the explorer's capsule network, control network and example digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.files import read_json
from capsnet.data import Dataset, load_local
from capsnet.explorer.programs import Program, programs_of
from capsnet.explorer.programs.geometry import main_directions
from capsnet.models import SavedModel, load_model
from capsnet.models.protocols import HasFeatures, Routed, Traceable

#: The bundled control network, shown beside any model with the same image shape and classes.
CONTROL = "cnn-mnist"
#: Number of example digits, and of those used to measure the variation between digits.
EXAMPLES = 200
PROBES = 32
OVERVIEW_CHANNELS = 16


@dataclass(frozen=True, eq=False)
class Session:
    """Hold one model and the data that the page shows with it."""

    run: str
    saved: SavedModel
    model: Traceable
    result: dict[str, Any]
    """The content of result.json; empty without that file."""
    dataset: Dataset | None
    control: HasFeatures | None
    control_result: dict[str, Any]
    pictures: UInt8[Tensor, "examples channels height width"]
    labels: list[list[int]]
    planes: Float[Tensor, "types dim 2"] = field(init=False)
    """For each type of primary capsule, its two directions of largest variation between digits."""
    channels: list[int] = field(init=False)
    """The Conv1 maps that vary most between digits."""
    programs: dict[str, Program] = field(init=False)
    """What answers the page's questions, by endpoint."""

    def __post_init__(self) -> None:
        shape = self.model.config.image_shape
        probes = self.pictures[:PROBES].float() / 255
        if not len(probes):  # without examples, noise also shows where the activations vary
            probes = torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))
        trace = self.model.trace(probes)
        types = self.model.config.primary_types
        by_type = trace.primary.unflatten(1, (types, -1)).transpose(0, 1).flatten(1, 2)  # type: ignore[no-untyped-call]
        object.__setattr__(self, "planes", main_directions(by_type - by_type.mean(dim=1, keepdim=True)))
        variation = trace.maps.std(dim=0).mean(dim=(1, 2))
        channels = variation.topk(min(OVERVIEW_CHANNELS, len(variation))).indices
        object.__setattr__(self, "channels", sorted(channels.tolist()))
        object.__setattr__(
            self, "programs", programs_of(self.model, self.control, self.channels, self.planes)
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.model.class_names

    @property
    def maps(self) -> tuple[int, int]:
        """Return rows and columns of a Conv1 map."""
        config = self.model.config
        rows, columns = (
            (size - config.stem_kernel) // config.stem_stride + 1 for size in config.image_shape[1:]
        )
        return rows, columns

    @property
    def trained_on(self) -> str | None:
        """Return the name of the training data, if the run records it."""
        return self.saved.data

    @property
    def provenance(self) -> str:
        """Return where the digits come from, and whether the model was trained on them."""
        if self.dataset is None:
            return "No examples: the training data of this model are not on this machine."
        seen = self.trained_on == "mnist" and self.dataset.name == "mnist5k"
        note = " The model was trained on MNIST's whole training set, which contains these digits."
        return self.dataset.provenance + (note if seen else "")


def open_session(run: str) -> Session:
    """Load a model with its data and control. Only a model on the Hub is downloaded.

    Raises:
        CapsnetError: the run does not exist, is damaged, or is not a capsule network.
    """
    saved = SavedModel.open(run)
    model = load_model(saved)
    if not isinstance(model, Traceable):
        why = "which has no routing to trace; the explorer shows only capsule networks"
        if isinstance(model, Routed):
            why = "and the explorer shows CapsNets only; `capsnet trace` shows the routing of an image"
        raise CapsnetError(f"{run} is a {model.architecture}, {why}: choose another RUN")
    dataset = load_local(saved.data, model.config.image_shape, model.config.num_classes)
    pictures, labels = _pictures(dataset, model)
    control, control_result = _control(model)
    return Session(
        Path(run).name,
        saved,
        model,
        read_result(saved.folder),
        dataset,
        control,
        control_result,
        pictures,
        labels,
    )


def read_result(folder: Path) -> dict[str, Any]:
    """Read a run's result.json; return an empty dict without that file."""
    path = folder / "result.json"
    result = read_json(path) if path.exists() else {}
    return result if isinstance(result, dict) else {}


def _pictures(dataset: Dataset | None, model: Traceable) -> tuple[Tensor, list[list[int]]]:
    if dataset is None:
        return torch.zeros(0, *model.config.image_shape, dtype=torch.uint8), []
    test = dataset.test
    indices = torch.arange(min(EXAMPLES, len(test)))
    batch = test.batch(indices, torch.full((len(indices), test.draws), 0.5) if test.draws else None)
    # Only the first of two overlapping digits: visitors combine two digits themselves.
    images = batch.originals[:, 0].clamp(0, 1)
    return (images * 255).round().to(torch.uint8), batch.labels[:, :1].tolist()


def _control(model: Traceable) -> tuple[HasFeatures | None, dict[str, Any]]:
    try:
        saved = SavedModel.open(CONTROL)
        control = load_model(saved)
    except CapsnetError:
        return None, {}
    same = tuple(control.config.image_shape) == model.config.image_shape
    if isinstance(control, HasFeatures) and same and control.class_names == model.class_names:
        return control, read_result(saved.folder)
    return None, {}
