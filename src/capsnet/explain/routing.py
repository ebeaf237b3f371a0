"""Summarise a routing trace: coupling entropy, dead capsules, logit changes."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import RoutingTrace


def coupling_entropy(trace: RoutingTrace) -> Float[Tensor, "iterations batch"]:
    """Return the mean entropy of the children's couplings, relative to its maximum.

    At 1 each child is spread evenly over its parents; at 0 each child sends to one parent only. With leaky
    routing the leaked share counts as one more parent. NaN if there is only one parent.
    """
    couplings = trace.couplings.double()
    if trace.leaky:
        leaked = (1 - couplings.sum(dim=-1, keepdim=True)).clamp(min=0)
        couplings = torch.cat([couplings, leaked], dim=-1)
    entropy: Tensor = torch.special.entr(couplings).sum(dim=-1).mean(dim=-1)
    return (entropy / log(couplings.shape[-1])).to(trace.couplings.dtype)


def dead_share(capsules: Float[Tensor, "batch capsules dim"], threshold: float = 0.01) -> float:
    """Return the share of dead capsules: shorter than `threshold` in every example.

    Stacked capsule layers can lose their capsules this way (Mitterreiter et al. 2023). For class capsules the
    batch must contain every class; the capsule of a missing class would count as dead.

    Raises:
        ValueError: there are no examples or no capsules.
    """
    if not len(capsules) or not capsules.shape[1]:
        raise ValueError(
            f"dead_share: got {len(capsules)} examples with {capsules.shape[1]} capsules; it needs at least 1 of each"
        )
    longest = torch.linalg.vector_norm(capsules, dim=-1).amax(dim=0)
    return float((longest < threshold).float().mean())


def logit_changes(trace: RoutingTrace) -> Float[Tensor, "steps batch"]:
    """Return the mean |change| of the logits between iterations (figure A.1).

    The result has iterations − 1 rows.
    """
    return trace.logits.diff(dim=0).abs().mean(dim=(2, 3))


def routing_summary(
    trace: RoutingTrace, class_names: Sequence[str], example: int = 0
) -> list[dict[str, Any]]:
    """Return one example's routing in each iteration, as values for JSON.

    Args:
        trace: of class capsules.
        class_names: one for each parent.
        example: its place in the batch.

    Returns:
        For each iteration the entropy of the couplings (see `coupling_entropy`), the mean change of the logits since
        the iteration before (None in the first), and for each class the capsule's "length", or its "activation" where
        capsules have one, and its mean and largest coupling.
    """
    entropy = coupling_entropy(trace)[:, example].tolist()
    changes = [None, *logit_changes(trace)[:, example].tolist()]
    measure = "length" if trace.activations is None else "activation"
    values = trace.outputs.flatten(3).norm(dim=-1) if trace.activations is None else trace.activations
    values = values[:, example].tolist()
    couplings = trace.couplings[:, example]
    means, largest = couplings.mean(dim=1).tolist(), couplings.amax(dim=1).tolist()
    return [
        {
            "iteration": step + 1,
            "coupling_entropy": entropy[step],
            "logit_change": changes[step],
            "classes": [
                {
                    "class": name,
                    measure: values[step][number],
                    "mean_coupling": means[step][number],
                    "largest_coupling": largest[step][number],
                }
                for number, name in enumerate(class_names)
            ],
        }
        for step in range(len(values))
    ]
