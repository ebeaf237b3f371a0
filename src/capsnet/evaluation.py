"""Test error, honestly: of the model as it is, with n and an interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capsnet.data.dataset import Source
from capsnet.errors import NotFinite
from capsnet.models.base import Classifier


def wilson_interval(errors: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval for a proportion (95 % by default): sound for few errors, never below 0.

    Raises:
        ValueError: n < 1 or errors outside 0…n.
    """
    if n < 1 or not 0 <= errors <= n:
        raise ValueError(f"wilson_interval: {errors} errors of {n}")
    p = errors / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Evaluation:
    """Answers to a test set. An example counts as right only if all its classes are found, in any order."""

    scores: Float[Tensor, "n classes"]
    labels: Int[Tensor, "n count"]

    @property
    def predictions(self) -> Int[Tensor, "n count"]:
        """As many classes as each example has, the strongest first."""
        return self.scores.topk(self.labels.shape[1], dim=1).indices

    @property
    def wrong(self) -> Tensor:
        """Which examples are not entirely right, bool (n,)."""
        return (self.predictions.sort(dim=1).values != self.labels.sort(dim=1).values).any(dim=1)

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @property
    def errors(self) -> int:
        """Number of examples that are not entirely right."""
        return int(self.wrong.sum())

    @property
    def error(self) -> float:
        """Share of wrong examples, 0…1."""
        return self.errors / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the error."""
        return wilson_interval(self.errors, self.n)

    def summary(self) -> dict[str, Any]:
        """The figures for result.json."""
        low, high = self.interval
        return {
            "test_error": self.error,
            "interval_95": [low, high],
            "interval_method": "Wilson",
            "errors": self.errors,
            "n": self.n,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.error:.2%} ({self.errors} of {self.n}; 95 % interval {low:.2%} to {high:.2%})"


@torch.no_grad()
def evaluate(model: Classifier, source: Source, batch_size: int = 500) -> Evaluation:
    """Scores of every example of a data set, without augmentation.

    The model's training mode is put back afterwards.

    Raises:
        ValueError: there are no examples, or no batches.
        NotFinite: a score is no number, so there is no answer to count.
    """
    if not len(source) or batch_size < 1:
        raise ValueError(f"evaluate: {len(source)} examples in batches of {batch_size}")
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    scores, labels = [], []
    try:
        for start in range(0, len(source), batch_size):
            indices = torch.arange(start, min(start + batch_size, len(source)), device=device)
            uniforms = torch.full((len(indices), source.draws), 0.5, device=device) if source.draws else None
            batch = source.batch(indices, uniforms)
            scores.append(model.scores(batch.images).float().cpu())
            labels.append(batch.labels.cpu())
    finally:
        model.train(was_training)
    whole = torch.cat(scores)
    if broken := int((~whole.isfinite()).any(dim=1).sum()):
        raise NotFinite(f"the model's scores are not finite for {broken} of {len(whole)} test examples")
    return Evaluation(whole, torch.cat(labels))
