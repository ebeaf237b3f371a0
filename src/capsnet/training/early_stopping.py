"""Stop a training when the error on held-out images does not fall."""

from __future__ import annotations

from torch import Tensor

from capsnet.inference.evaluation import Evaluation
from capsnet.models.base import Classifier
from capsnet.training.loop import Progress, StopTraining


class EarlyStopping:
    """A `Progress` that keeps the best weights, and stops when the error does not fall.

    The error is that on the data set's test images, so give the held-out images as these.

    Args:
        model: the model in training.
        shown: is called first.
        patience: epochs without a lower error, after which the training stops.
    """

    def __init__(self, model: Classifier, shown: Progress, patience: int) -> None:
        self.model, self.shown, self.patience = model, shown, patience
        self.errors: list[float] = []
        self.weights: dict[str, Tensor] = {}
        self._since = 0

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        """Pass it on."""
        self.shown.logged(step, steps, values)

    def noticed(self, message: str) -> None:
        """Pass it on."""
        self.shown.noticed(message)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Compare with the lowest error so far.

        Raises:
            StopTraining: the error has not fallen for `patience` epochs.
        """
        self.shown.evaluated(step, evaluation)
        lowest = min(self.errors, default=2.0)
        self.errors.append(evaluation.error)
        if evaluation.error <= lowest:
            self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self._since = 0 if evaluation.error < lowest else self._since + 1
        if self._since >= self.patience:
            raise StopTraining
