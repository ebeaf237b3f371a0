"""Count the parameters and multiply-adds of any model with the same code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from capsnet._support import dispatch
from capsnet.models.base import Classifier


@dataclass(frozen=True)
class Cost:
    """Size and arithmetic of a model."""

    parameters: int
    """All trained parameters, including the decoder's."""
    multiply_adds: int
    """To classify one image with the plain paths: convolutions, matrix products and routing. The decoder is not
    needed for that."""


def cost_of(model: Classifier) -> Cost:
    """Count a model's cost by classifying one black image.

    >>> from capsnet.models import CapsNet
    >>> cost_of(CapsNet())
    Cost(parameters=8215568, multiply_adds=201793536)
    """
    image = torch.zeros(1, *model.config.image_shape, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    with dispatch.disabled(), counter:
        model.predict(image)
    return Cost(model.parameter_count(), counter.get_total_flops() // 2)
