"""What an experiment is: a claim of the paper, the models that put it to the test, and what is measured on each."""

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
from capsnet.training.config import TrainConfig
from capsnet.training.run import Run

if TYPE_CHECKING:
    from capsnet.report.style import Picture

#: "full": the published network and schedule. "quick": the whole experiment on a small machine. "smoke": a few
#: steps of a tiny network, to see that it runs; its numbers mean nothing and no table shows them.
Scale = Literal["smoke", "quick", "full"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "full")


@dataclass(frozen=True)
class Stop:
    """Training ends when the error on the data set's own test set is at most this: models are then compared at
    equal accuracy on what they were trained for."""

    error: float
    every: int = 50
    """Steps between looks; a multiple of 10."""


@dataclass(frozen=True)
class Variant:
    """One model of an experiment and how it is trained. The seed is put in for each run."""

    name: str
    about: str
    model: ClassifierConfig
    training: TrainConfig
    control: bool = False
    per_class: int | None = None
    """Training examples of each class, drawn by the run's seed; None: all."""
    stop: Stop | None = None
    pixels: str | None = None
    """Fingerprint of the images, where their data set's name does not determine them."""

    def build(self, dataset: Dataset) -> Classifier:
        """Return the untrained model for a data set. Seed PyTorch first."""
        suited = replace(self.model, class_names=dataset.class_names, standardize=dataset.standardize)
        model: Classifier = suited.build()
        return model

    def settings(self, seed: int) -> str:
        """Fingerprint of all that determines a run. Runs of different experiments may share it."""
        training = asdict(replace(self.training, seed=seed))
        for irrelevant in ("save_seconds", "evaluate_every", "epochs", "on_nonfinite", "deterministic"):
            del training[irrelevant]
        model = asdict(self.model)
        for told_by_the_data in ("class_names", "standardize"):
            del model[told_by_the_data]
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
    """A run that has ended, for an experiment to measure."""

    variant: Variant
    seed: int
    scale: Scale
    data_dir: Path | None
    dataset: Dataset
    model: Classifier
    """In evaluation mode, on the device it was trained on."""
    evaluation: Evaluation
    """Of the data set's own test set."""
    run: Run

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def few(self, quick: int, full: int) -> int:
        """How many examples to measure on: as many as the scale allows, and next to none in a smoke run."""
        if self.scale == "smoke":
            return SMOKE_EXAMPLES
        return quick if self.scale == "quick" else full


#: Test examples looked at in a smoke run.
SMOKE_EXAMPLES = 60


@dataclass(frozen=True)
class Measure:
    """A number in an experiment's table."""

    key: str
    """Name of a test set (its error is meant) or of a metric."""
    title: str
    percent: bool = True
    better: Literal["lower", "higher"] | None = "lower"
    digits: int = 2
    published: Mapping[str, str] = field(default_factory=dict)
    """What the paper reports, by variant."""


@dataclass(frozen=True)
class Margin:
    """The smallest difference that would matter to a user, fixed before the runs that it judges."""

    size: float
    """In the measure's own unit: 0.01 is one point of an error."""
    why: str
    """One sentence without its full stop: why it is that much."""

    def __post_init__(self) -> None:
        if not (isfinite(self.size) and self.size > 0):
            raise ValueError(f"a margin of {self.size}; it must be a finite number above 0")


@dataclass(frozen=True)
class Claim:
    """One variant is better than another in some measure. The verdict says whether that came out."""

    text: str
    measure: str
    ours: str
    against: str
    margin: Margin


def load_data(variant: Variant, seed: int, data_dir: Path | None) -> Dataset:  # noqa: ARG001
    """The data set that the variant's training names.

    Raises:
        CapsnetError: it is missing or damaged.
    """
    return load(variant.training.data, data_dir)


def own_test_set(trained: Trained) -> Findings:
    """Measure nothing but the error on the data set's own test set, under the name "test"."""
    return Findings(tests={"test": trained.evaluation}, groups=groups_of({"test": trained.dataset.test}))


def groups_of(tests: Mapping[str, Source]) -> dict[str, NDArray[Any]]:
    """What the examples of test sets show, as numbers, for `Findings`; of those sets that say it."""
    return {
        name: source.groups.cpu().numpy()
        for name, source in tests.items()
        if isinstance(source, Examples) and source.groups is not None
    }


def nothing(records: Sequence[Record]) -> list[Any]:  # noqa: ARG001
    """No further notes, or no figures."""
    return []


@dataclass(frozen=True)
class Experiment:
    """A claim of the paper as something that can be run.

    Args:
        name: for `capsnet reproduce NAME`.
        number: its place among the nine; two share one where two data sets serve one question.
        title: the question, in a few words.
        source: the paper's table or figure, and the number it reports.
        protocol: what is done.
        deviations: from the published protocol, at each scale.
        cost: time at each scale, and on what.
        seeds: how many are run at each scale.
        variants: the models, the published one first.
        measures: the table's columns, the most important first.
        claims: what the table is to decide.
        headlines: variants that the overview shows; none: the first.
        shows: what several test examples show alike, in the plural ("toys"); None: each shows something else.
        load: the data set of a run.
        measure: what is measured on each trained model.
        notes: what else the records of one scale say, as paragraphs of Markdown.
        figures: drawn from the records of one scale.
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
    notes: Callable[[Sequence[Record]], list[str]] = nothing
    figures: Callable[[Sequence[Record]], list[Picture]] = nothing

    def as_dict(self) -> dict[str, Any]:
        """What a list of experiments shows."""
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
