"""The moving average of a model's weights during training."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from capsnet.models.base import Classifier


class Average:
    """A second model whose weights are a moving average of the first one's, and so are its batch statistics.

    Args:
        model: the model in training.
        share: share of all steps that the average spans, more than 0.
        steps: number of all steps.
    """

    def __init__(self, model: Classifier, share: float, steps: int) -> None:
        self.model = deepcopy(model).requires_grad_(False)
        decay = max(0.0, 1 - 1 / (share * steps))
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, model: Classifier) -> None:
        """Add the weights after a step."""
        own, new = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [index for index, tensor in enumerate(own) if tensor.is_floating_point()]
        self._update([own[index] for index in floats], [new[index] for index in floats], 0)
        for index in set(range(len(own))) - set(floats):
            own[index].copy_(new[index])
