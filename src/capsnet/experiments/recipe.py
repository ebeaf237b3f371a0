"""Define the parts of an experiment: variants, measures and claims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from numpy.typing import NDArray

from capsnet.data import Dataset, load
from capsnet.data.dataset import Examples, Source
from capsnet.experiments.record import Findings, Record
from capsnet.inference.evaluation import Evaluation
from capsnet.models import Classifier, ClassifierConfig
from capsnet.training.config import Stop, TrainConfig
from capsnet.training.run import Run

if TYPE_CHECKING:
    from capsnet.report.style import Picture

#: "full": the published network and schedule. "quick": the whole experiment on a small machine. "smoke": a few
#: steps of a tiny network, to check that it runs. The numbers of smoke runs mean nothing, and no table shows them.
Scale = Literal["smoke", "quick", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "full")

#: Training options that the first records do not know, with the values of their trainings. At these values they do not
#: count in fingerprints, so that older records stay valid.
LATER: Mapping[str, Any] = {
    "rotation": 0.0,
    "settle": 0.0,
    "scale": 0.0,
    "average": 0.0,
    "class_weights": None,
    "hold_out": 0.0,
}
#: The same for options of models.
LATER_IN_MODELS: Mapping[str, Any] = {"routing": "dynamic"}


@dataclass(frozen=True)
class Variant:
    """Hold one model of an experiment and its training. Each run adds its seed."""

    name: str
    about: str
    model: ClassifierConfig
    training: TrainConfig
    control: bool = False
    per_class: int | None = None
    """Training examples per class, drawn with the run's seed; None: all."""
    stop: Stop | None = None
    pixels: str | None = None
    """Fingerprint of the images, if the data set's name does not determine them."""
    rate_errors: Mapping[str, float] = field(default_factory=dict)
    """Error on held-out training images at each learning rate that was tried; empty if none was chosen."""

    def build(self, dataset: Dataset) -> Classifier:
        """Return the untrained model for a data set. Seed PyTorch first."""
        scaled = self.model.standardize or dataset.standardize
        suited = replace(self.model, class_names=dataset.class_names, standardize=scaled)
        model: Classifier = suited.build()
        return model

    def settings(self, seed: int) -> str:
        """Return the fingerprint of everything that determines a run.

        Runs of different experiments may have the same one, and then share a training.
        """
        training = asdict(replace(self.training, seed=seed))
        for irrelevant in ("save_seconds", "evaluate_every", "epochs", "on_nonfinite", "deterministic"):
            del training[irrelevant]
        for option, before in LATER.items():
            if training[option] == before:
                del training[option]
        model = asdict(self.model)
        del model["class_names"]
        if not model["standardize"]:  # then the data set decides
            del model["standardize"]
        for option, before in LATER_IN_MODELS.items():
            if model.get(option) == before:
                del model[option]
        asked = {
            "architecture": type(self.model).__name__,
            "model": model,
            "training": training,
            "per_class": self.per_class,
            "stop": asdict(self.stop) if self.stop else None,
            **({"pixels": self.pixels} if self.pixels else {}),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Trained:
    """Hold a finished run for an experiment to measure."""

    variant: Variant
    seed: int
    scale: Scale
    data_dir: Path | None
    dataset: Dataset
    model: Classifier
    """The model in evaluation mode, on the device it was trained on."""
    evaluation: Evaluation
    """Evaluation on the data set's own test set."""
    run: Run

    @property
    def device(self) -> torch.device:
        """Return the model's device."""
        return next(self.model.parameters()).device

    def few(self, quick: int, full: int) -> int:
        """Return how many examples to measure on, by scale; a smoke run uses only a few."""
        if self.scale == "smoke":
            return SMOKE_EXAMPLES
        return quick if self.scale == "quick" else full


#: Test examples measured in a smoke run.
SMOKE_EXAMPLES = 60


@dataclass(frozen=True)
class Measure:
    """Describe a column in an experiment's table."""

    key: str
    """Name of a metric, or of a test set for its error."""
    title: str
    percent: bool = True
    better: Literal["lower", "higher"] | None = "lower"
    digits: int = 2
    published: Mapping[str, str] = field(default_factory=dict)
    """The paper's numbers, by variant."""


@dataclass(frozen=True)
class Margin:
    """Hold the smallest difference that would matter to a user."""

    size: float
    """Size in the measure's unit: 0.01 is one percentage point of an error."""
    why: str
    """The reason for the size, as one sentence without a full stop."""

    def __post_init__(self) -> None:
        if not (isfinite(self.size) and self.size > 0):
            raise ValueError(f"margin is {self.size}; it must be finite and above 0")


@dataclass(frozen=True)
class Claim:
    """Claim that one variant is better than another in one measure."""

    text: str
    measure: str
    ours: str
    against: str
    margin: Margin


def load_data(variant: Variant, seed: int, data_dir: Path | None) -> Dataset:  # noqa: ARG001
    """Load the data set that the variant's training names.

    Raises:
        CapsnetError: the data set is missing or damaged.
    """
    return load(variant.training.data, data_dir)


def own_test_set(trained: Trained) -> Findings:
    """Return only the error on the data set's own test set, named "test"."""
    return Findings(tests={"test": trained.evaluation}, groups=groups_of({"test": trained.dataset.test}))


def groups_of(tests: Mapping[str, Source]) -> dict[str, NDArray[Any]]:
    """Return the group ids of the test sets that have them, for `Findings`."""
    return {
        name: source.groups.cpu().numpy()
        for name, source in tests.items()
        if isinstance(source, Examples) and source.groups is not None
    }


def nothing(records: Sequence[Record]) -> list[Any]:  # noqa: ARG001
    """Return no notes, or no figures."""
    return []


@dataclass(frozen=True)
class Experiment:
    """Define an experiment of the paper that can be run.

    Args:
        name: name in `capsnet reproduce NAME`.
        number: number on the results page; experiments on the same question may share it.
        title: the question, in a few words.
        source: the paper's table or figure, and the number it reports.
        protocol: description of training, data and measures.
        deviations: differences from the published protocol, at each scale.
        cost: time and machine, at each scale.
        seeds: number of seeds at each scale.
        variants: the models, the published one first.
        measures: columns of the table, the most important first.
        claims: claims that the records decide.
        headlines: variants in the overview; empty: the first variant.
        shows: plural name of the objects that several test examples show ("toys"); None: examples are independent.
        load: function that loads the data set of a run.
        measure: function that measures a trained model.
        margins_commit: the commit that fixed the claims' margins, before the runs at the quick scale; None: later.
        own_rates: whether each variant gets its own learning rate at the quick scale, chosen on training images.
        notes: function that returns further paragraphs of Markdown, from the records of one scale.
        figures: function that draws figures, from the records of one scale.
    """

    name: str
    number: int
    title: str
    source: str
    protocol: str
    deviations: Mapping[Scale, Sequence[str]]
    cost: Mapping[Scale, str]
    seeds: Mapping[Scale, int]
    variants: Callable[[Scale], Sequence[Variant]]
    measures: Sequence[Measure]
    claims: Sequence[Claim]
    headlines: Sequence[str] = ()
    shows: str | None = None
    load: Callable[[Variant, int, Path | None], Dataset] = load_data
    measure: Callable[[Trained], Findings] = own_test_set
    margins_commit: str | None = None
    own_rates: bool = True
    notes: Callable[[Sequence[Record]], list[str]] = nothing
    figures: Callable[[Sequence[Record]], list[Picture]] = nothing

    def as_dict(self) -> dict[str, Any]:
        """Return the entries for a list of experiments."""
        return {
            "name": self.name,
            "number": self.number,
            "title": self.title,
            "source": self.source,
            "protocol": self.protocol,
            "deviations": {scale: list(lines) for scale, lines in self.deviations.items()},
            "cost": dict(self.cost),
            "seeds": dict(self.seeds),
            "variants": [variant.name for variant in self.variants("full")],
        }
