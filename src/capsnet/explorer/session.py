"""Load the explorer's capsule network, control network and example digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.files import read_json
from capsnet.data import Dataset, load_local
from capsnet.data.dataset import middle_batch
from capsnet.explain.morphometrics import is_light_on_dark
from capsnet.explorer.absent import absent_parts
from capsnet.explorer.programs import Program, programs_of
from capsnet.explorer.programs.geometry import main_directions
from capsnet.models import SavedModel, load_model
from capsnet.models.protocols import HasFeatures, Routed, Traceable
from capsnet.routing import RoutingTrace

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
    model: Routed
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
    routing: RoutingTrace = field(init=False)
    """The routing of the first example, for its sizes."""
    inverts: bool = field(init=False)
    """Whether a picture of dark ink on light paper is inverted: the model's images are light on dark."""
    absent: dict[str, str] = field(init=False)
    """Parts of the page that do not apply to this model, and why."""
    programs: dict[str, Program] = field(init=False)
    """What answers the page's questions, by endpoint."""

    def __post_init__(self) -> None:
        model = self.model
        probes = self.pictures[:PROBES].float() / 255
        if not len(probes):  # without examples, noise also shows where the activations vary
            shape = model.config.image_shape
            probes = torch.rand(PROBES, *shape, generator=torch.Generator().manual_seed(0))
        inverts = is_light_on_dark(probes) if len(self.pictures) else model.config.image_shape[0] == 1
        planes, channels = (
            _variation(model, probes) if isinstance(model, Traceable) else (torch.zeros(0, 1, 2), [])
        )
        one_pass = len(model.class_routing(probes[:1], 2).couplings) == 1
        found = {
            "planes": planes,
            "channels": channels,
            "routing": model.class_routing(probes[:1]),
            "inverts": inverts,
            "absent": (absent := absent_parts(model, one_pass)),
            "programs": programs_of(model, self.control, channels, planes, absent, inverts),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.model.class_names

    @property
    def maps(self) -> tuple[int, int]:
        """Return rows and columns of a Conv1 map; 0 without Conv1."""
        config = self.model.config
        if not isinstance(self.model, Traceable):
            return 0, 0
        rows, columns = (
            (size - config.stem_kernel) // config.stem_stride + 1 for size in config.image_shape[1:]
        )
        return rows, columns

    @property
    def iterations(self) -> int:
        """Return the model's number of routing iterations."""
        return len(self.routing.couplings)

    @property
    def in_caps(self) -> int:
        """Return the number of children of the class capsules."""
        return self.routing.couplings.shape[2]

    @property
    def class_dim(self) -> int:
        """Return how many numbers a class capsule's pose has."""
        return self.routing.outputs[0, 0, 0].numel()

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
    if not isinstance(model, Routed):
        raise CapsnetError(
            f"{run} is a {model.architecture}, which has no routing to trace; the explorer shows only capsule "
            "networks: choose another RUN"
        )
    config = model.config
    dataset = load_local(saved.data, config.image_shape, config.num_classes, config.class_names)
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


def _variation(model: Traceable, probes: Tensor) -> tuple[Tensor, list[int]]:
    """Return the planes of the types of primary capsules, and the Conv1 maps that vary most."""
    trace = model.trace(probes)
    by_type = trace.primary.unflatten(1, (model.config.primary_types, -1)).transpose(0, 1).flatten(1, 2)  # type: ignore[no-untyped-call]
    variation = trace.maps.std(dim=0).mean(dim=(1, 2))
    channels = variation.topk(min(OVERVIEW_CHANNELS, len(variation))).indices
    return main_directions(by_type - by_type.mean(dim=1, keepdim=True)), sorted(channels.tolist())


def places(dataset: Dataset, count: int) -> Int[Tensor, " chosen"]:
    """Return the first test examples. Own images may be sorted by class: of them, evenly spaced ones."""
    total = len(dataset.test)
    if dataset.name.startswith(("folder:", "npz:", "hf:")):
        return torch.linspace(0, total - 1, min(count, total)).long()
    return torch.arange(min(count, total))


def _pictures(dataset: Dataset | None, model: Routed) -> tuple[Tensor, list[list[int]]]:
    if dataset is None:
        return torch.zeros(0, *model.config.image_shape, dtype=torch.uint8), []
    test, indices = dataset.test, places(dataset, EXAMPLES)
    batch = middle_batch(test, indices)
    # Only the first of two overlapping digits: visitors combine two digits themselves.
    images = batch.originals[:, 0].clamp(0, 1)
    return (images * 255).round().to(torch.uint8), batch.labels[:, :1].tolist()


def _control(model: Routed) -> tuple[HasFeatures | None, dict[str, Any]]:
    try:
        saved = SavedModel.open(CONTROL)
        control = load_model(saved)
    except CapsnetError:
        return None, {}
    same = tuple(control.config.image_shape) == model.config.image_shape
    if isinstance(control, HasFeatures) and same and control.class_names == model.class_names:
        return control, read_result(saved.folder)
    return None, {}
