"""Load a finished run, its model and test set, and select examples to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Batch, Dataset, Source, middle_batch
from capsnet.explain.morphometrics import is_light_on_dark
from capsnet.inference.evaluation import Evaluation, evaluate, flags_of
from capsnet.models.base import Classifier
from capsnet.models.protocols import Decodes, HasPoses, Routed, Traceable, decodes
from capsnet.report.style import drawable
from capsnet.training.run import Run

#: Largest number of classes that get their own figure.
CLASSES_SHOWN = 10
#: Largest number of vote values in memory in one forward pass: 256 MiB.
MAX_VOTES = 2**26


@dataclass(frozen=True, eq=False)
class Material:
    """Hold the run, model, data and evaluation that the figures are drawn from."""

    folder: Path
    training: Mapping[str, Any]
    """The training options in config.json."""
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    dataset: Dataset
    model: Classifier
    evaluation: Evaluation
    test: Source
    """The test set, on the model's device."""

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None) -> Material:
        """Read a run, and evaluate the model if no evaluation is given.

        Raises:
            CapsnetError: the run is missing or unfinished, or the model does not fit the data set.
        """
        run = Run.reopen(folder)
        training, result = run.saved().training, run.finished()
        takes = (model.config.num_classes, tuple(model.config.image_shape))
        if takes != (len(dataset.class_names), tuple(dataset.image_shape)):
            raise CapsnetError(
                f"{folder}: the model has {takes[0]} classes and images of {takes[1]}, but {dataset.name} has "
                f"{len(dataset.class_names)} classes and images of {tuple(dataset.image_shape)}; use the data that the "
                "model was trained on"
            )
        test = dataset.test.to(next(model.parameters()).device)
        measured = evaluate(model, test) if evaluation is None else evaluation
        if measured.n != len(test):
            raise CapsnetError(
                f"{folder}: the evaluation has {measured.n} examples, but {dataset.name}'s test set has {len(test)}; "
                "evaluate the model on that test set"
            )
        return cls(folder, training, result, run.metrics(), dataset, model, measured, test)

    @property
    def traceable(self) -> Traceable | None:
        """Return the model if its routing can be traced, else None."""
        return self.model if isinstance(self.model, Traceable) else None

    @property
    def routed(self) -> Routed | None:
        """Return the model if its routing to the class capsules can be shown, else None."""
        return self.model if isinstance(self.model, Routed) else None

    @property
    def measure(self) -> Literal["length", "activation"]:
        """Return what says that a class is present: the length of its capsule, or its activation."""
        return "length" if isinstance(self.model, HasPoses) else "activation"

    @property
    def decoding(self) -> Decodes | None:
        """Return the model if it has a decoder, else None."""
        return self.model if decodes(self.model) else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the class names as the figures show them."""
        return drawable(self.dataset.class_names)

    @cached_property
    def is_light_on_dark(self) -> bool:
        """Return whether thickness, slant and so on are meaningful for these images."""
        return is_light_on_dark(self.pictures(self.batch(list(range(min(32, len(self.test)))))))

    @property
    def present(self) -> int:
        """Return the number of classes in each example: 2 for overlapping digits, all if any number may be present."""
        return self.evaluation.labels.shape[1]

    def named(self, numbers: Int[Tensor, " count"]) -> str:
        """Return the names of the classes of one example."""
        return " + ".join(self.names[number] for number in numbers.tolist() if number >= 0) or "none"

    def batch(self, indices: Int[Tensor, " count"] | list[int]) -> Batch:
        """Return test examples on the model's device."""
        device = next(self.model.parameters()).device
        chosen = torch.as_tensor(indices, dtype=torch.long, device=device)
        return middle_batch(self.test, chosen)  # as it is evaluated

    def pictures(self, batch: Batch) -> Float[Tensor, "batch channels height width"]:
        """Return the images in [0, 1], before standardisation."""
        return batch.originals.sum(dim=1).clamp(0, 1).cpu()

    @cached_property
    def classes_shown(self) -> list[int]:
        """Return the classes of the test set, an even selection if there are many."""
        there = self.evaluation.labels.unique().tolist()  # type: ignore[no-untyped-call]
        classes = [number for number in there if number >= 0]
        if len(classes) <= CLASSES_SHOWN:
            return list(classes)
        picks = torch.linspace(0, len(classes) - 1, CLASSES_SHOWN).round().int().tolist()
        return [classes[pick] for pick in picks]

    def right(self, count: int) -> list[int]:
        """Return correctly classified test examples, from many classes, sorted by class."""
        found: dict[int, list[int]] = {}
        for index in (~self.evaluation.wrong).nonzero().flatten().tolist():
            found.setdefault(int(self.evaluation.labels[index, 0]), []).append(index)
        numbers = sorted(found)
        if len(numbers) > count:
            picks = torch.linspace(0, len(numbers) - 1, count).round().int().tolist()
            return [found[numbers[pick]][0] for pick in picks]
        turns = max(map(len, found.values()), default=0)
        in_turn = [
            found[number][turn] for turn in range(turns) for number in numbers if turn < len(found[number])
        ]
        return sorted(in_turn[:count], key=lambda index: int(self.evaluation.labels[index, 0]))

    def wrong(self, count: int) -> list[int]:
        """Return wrongly classified test examples, the most confident mistakes first."""
        scores = self.evaluation.scores.nan_to_num(0.0)
        flags = flags_of(self.evaluation.predictions, scores.shape[1]).float()
        flags -= flags_of(self.evaluation.labels, scores.shape[1]).float()
        sure = (scores * flags).sum(dim=1)
        sure[~self.evaluation.wrong] = -torch.inf
        order = sure.argsort(descending=True, stable=True)
        return [int(index) for index in order[: min(count, self.evaluation.errors)]]

    def of_class(self, number: int, count: int) -> list[int]:
        """Return test examples of a class: correct ones first, then by confidence."""
        scores, labels = self.evaluation.scores.nan_to_num(0.0), self.evaluation.labels
        here = (labels == number).any(dim=1)
        value = scores[:, number] - 2.0 * self.evaluation.wrong
        value[~here] = -torch.inf
        return [int(i) for i in value.argsort(descending=True, stable=True)[: min(count, int(here.sum()))]]

    def several(self, count: int, votes: int) -> list[int]:
        """Return `count` evenly spaced test examples, or as many as memory allows.

        Args:
            count: the largest number of examples.
            votes: numbers in the votes of one.
        """
        kept = min(count, len(self.test), max(1, MAX_VOTES // votes))
        spread: list[int] = torch.linspace(0, len(self.test) - 1, kept).long().tolist()
        return spread
