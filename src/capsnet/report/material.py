"""What a report is made of: a finished run, its model, its test set, and which examples to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Batch, Dataset, Source
from capsnet.explain.morphometrics import is_light_on_dark
from capsnet.inference.evaluation import Evaluation, evaluate
from capsnet.models.base import Classifier
from capsnet.models.protocols import Decodes, Traceable, decodes
from capsnet.report.style import drawable
from capsnet.training.run import Run

#: So many classes get a figure of their own, where there are more.
CLASSES_SHOWN = 10
#: Votes of one forward pass that may be in memory at once: a quarter of a gigabyte.
MAX_VOTES = 2**26


@dataclass(frozen=True, eq=False)
class Material:
    """Everything the figures draw from."""

    folder: Path
    training: Mapping[str, Any]
    """How it was trained, as config.json says."""
    result: dict[str, Any]
    metrics: list[dict[str, Any]]
    dataset: Dataset
    model: Classifier
    evaluation: Evaluation
    test: Source
    """On the model's device."""

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None) -> Material:
        """Read a run, and measure the model unless that has been done.

        Raises:
            CapsnetError: no run, an unfinished one, or a model that does not fit the data set.
        """
        run = Run.reopen(folder)
        training, result = run.saved().training, run.result()
        if result is None:
            raise CapsnetError(
                f"{folder} is not finished: it has no result.json; continue it with: "
                f"capsnet train --resume {folder}"
            )
        takes = (model.config.num_classes, tuple(model.config.image_shape))
        if takes != (len(dataset.class_names), tuple(dataset.image_shape)):
            raise CapsnetError(
                f"{folder}: the model knows {takes[0]} classes in images of {takes[1]}, and {dataset.name} has "
                f"{len(dataset.class_names)} in {tuple(dataset.image_shape)}; use the data it was trained on"
            )
        test = dataset.test.to(next(model.parameters()).device)
        measured = evaluate(model, test) if evaluation is None else evaluation
        if measured.n != len(test):
            raise CapsnetError(
                f"{folder}: the evaluation has {measured.n} examples and {dataset.name}'s test set {len(test)}; "
                "evaluate the model on that test set"
            )
        return cls(folder, training, result, run.metrics(), dataset, model, measured, test)

    @property
    def traceable(self) -> Traceable | None:
        """The model, if its routing can be traced."""
        return self.model if isinstance(self.model, Traceable) else None

    @property
    def decoding(self) -> Decodes | None:
        """The model, if it has a decoder."""
        return self.model if decodes(self.model) else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names as figures show them."""
        return drawable(self.dataset.class_names)

    @cached_property
    def is_light_on_dark(self) -> bool:
        """Whether thickness, slant and the like mean anything for these images."""
        return is_light_on_dark(self.pictures(self.batch(list(range(min(32, len(self.test)))))))

    @property
    def present(self) -> int:
        """Classes in each example: 2 where digits overlap."""
        return self.evaluation.labels.shape[1]

    def named(self, numbers: Int[Tensor, " count"]) -> str:
        """Names of the classes of one example."""
        return " + ".join(self.names[number] for number in numbers.tolist())

    def batch(self, indices: Int[Tensor, " count"] | list[int]) -> Batch:
        """Test examples, on the model's device."""
        device = next(self.model.parameters()).device
        chosen = torch.as_tensor(indices, dtype=torch.long, device=device)
        # A random test source is shown as it was measured: in the middle of its range.
        draws = self.test.draws
        return self.test.batch(
            chosen, torch.full((len(chosen), draws), 0.5, device=device) if draws else None
        )

    def pictures(self, batch: Batch) -> Float[Tensor, "batch channels height width"]:
        """The images as people see them, in [0, 1], also where the network sees them standardised."""
        return batch.originals.sum(dim=1).clamp(0, 1).cpu()

    @cached_property
    def classes_shown(self) -> list[int]:
        """Classes of the test set, evenly chosen if there are many."""
        classes = self.evaluation.labels.unique().tolist()  # type: ignore[no-untyped-call]
        if len(classes) <= CLASSES_SHOWN:
            return list(classes)
        picks = torch.linspace(0, len(classes) - 1, CLASSES_SHOWN).round().int().tolist()
        return [classes[pick] for pick in picks]

    def right(self, count: int) -> list[int]:
        """Test examples that the model gets right, of as many classes as possible, in the classes' order."""
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
        """Mistakes, those first that the model was surest of."""
        scores, labels = self.evaluation.scores.nan_to_num(0.0), self.evaluation.labels
        said = scores.gather(1, self.evaluation.predictions).sum(dim=1)
        sure = said - scores.gather(1, labels).sum(dim=1)
        sure[~self.evaluation.wrong] = -torch.inf
        order = sure.argsort(descending=True, stable=True)
        return [int(index) for index in order[: min(count, self.evaluation.errors)]]

    def of_class(self, number: int, count: int) -> list[int]:
        """Test examples of a class: right ones first, the surest first."""
        scores, labels = self.evaluation.scores.nan_to_num(0.0), self.evaluation.labels
        here = (labels == number).any(dim=1)
        value = scores[:, number] - 2.0 * self.evaluation.wrong
        value[~here] = -torch.inf
        return [int(i) for i in value.argsort(descending=True, stable=True)[: min(count, int(here.sum()))]]

    def several(self, count: int) -> list[int]:
        """The first test examples: as many as asked for and as routing can be traced for at once."""
        config = self.model.config
        votes = config.in_caps * config.num_classes * config.class_dim
        return list(range(min(count, len(self.test), max(1, MAX_VOTES // votes))))
