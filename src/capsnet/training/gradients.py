"""Average the gradients of several processes."""

from __future__ import annotations

import torch
from torch import nn


class SharedGradients:
    """The gradients of all weights as one tensor, which one all-reduce averages over the processes.

    The weights start as those of rank 0.

    Args:
        model: on its device.
        processes: how many train it together.
    """

    def __init__(self, model: nn.Module, processes: int) -> None:
        self._processes = processes
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        starts = [0]
        for weight in weights:
            starts.append(starts[-1] + -(-weight.numel() // 64) * 64)  # aligned, as Adam's kernel reads them
        self._all = torch.zeros(starts[-1] + 1, dtype=weights[0].dtype, device=weights[0].device)
        for weight, start in zip(weights, starts, strict=False):
            weight.grad = torch.as_strided(self._all, weight.shape, weight.stride(), start)
        self.flag = self._all[-1]
        """1 if the loss is not finite; after `average` more than 0 if it is not finite in any process."""
        if torch.distributed.is_initialized():
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, 0)

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._all.zero_()

    def average(self) -> None:
        """Average the gradients over the processes."""
        if self._processes > 1:
            torch.distributed.all_reduce(self._all.div_(self._processes))
