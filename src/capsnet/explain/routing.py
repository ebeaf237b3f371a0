"""How decided, how alive and how settled the routing is, read from a trace."""

from __future__ import annotations

from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import RoutingTrace


def coupling_entropy(trace: RoutingTrace) -> Float[Tensor, "iterations batch"]:
    """Entropy of the children's couplings, mean over the children, as a share of the largest possible.

    1: each child is spread evenly over its parents; 0: each goes to one parent only. Where the routing is
    leaky, what goes to nobody counts as one more parent. NaN where nobody has a choice: a single parent.
    """
    couplings = trace.couplings.double()
    if trace.leaky:
        nobody = (1 - couplings.sum(dim=-1, keepdim=True)).clamp(min=0)
        couplings = torch.cat([couplings, nobody], dim=-1)
    entropy: Tensor = torch.special.entr(couplings).sum(dim=-1).mean(dim=-1)
    return (entropy / log(couplings.shape[-1])).to(trace.couplings.dtype)


def dead_share(capsules: Float[Tensor, "batch capsules dim"], threshold: float = 0.01) -> float:
    """Share of capsules that stay shorter than `threshold` in every example: nothing ever wakes them.

    A stack of capsule layers starves this way (Mitterreiter et al. 2023). For class capsules the batch must
    hold every class, or a class that is not shown counts as dead.

    Raises:
        ValueError: there are no examples or no capsules.
    """
    if not len(capsules) or not capsules.shape[1]:
        raise ValueError(f"dead_share: {capsules.shape[1]} capsules of {len(capsules)} examples")
    longest = torch.linalg.vector_norm(capsules, dim=-1).amax(dim=0)
    return float((longest < threshold).float().mean())


def logit_changes(trace: RoutingTrace) -> Float[Tensor, "steps batch"]:
    """Mean |change| of the logits from each iteration to the next (figure A.1), iterations − 1 rows."""
    return trace.logits.diff(dim=0).abs().mean(dim=(2, 3))
