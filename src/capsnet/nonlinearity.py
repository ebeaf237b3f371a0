"""Equation 1, the capsules' nonlinearity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def squash(s: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Shrink short vectors to almost zero and long ones to just below length 1, keeping the direction (eq. 1).

        v = ‖s‖² / (1 + ‖s‖²) · s / ‖s‖

    Written as s · ‖s‖ / (1 + ‖s‖²), which is the same thing without the division by zero: no epsilon is
    needed, and value and gradient at s = 0 are 0.

    Args:
        s: vectors along `dim`.
        dim: the axis that holds a vector's numbers.

    Returns:
        Vectors of the same shape, of length at most 1: below it, up to rounding. NaN where ‖s‖² overflows, for
        float32 beyond ‖s‖ = 1e19.

    >>> squash(torch.tensor([3.0, 4.0])).norm()
    tensor(0.9615)
    """
    # In float16 the square of 256 is infinite and such a vector would come out as 0; in bfloat16 each of four
    # roundings is of half a per cent.
    wide = at_least_float32(s)
    length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    v: Tensor = wide * (length / (1 + length.square()))
    return v.to(s.dtype)


def at_least_float32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Out of 16 bits, where autocast or a converted model left them; float64 stays as it is."""
    return x if x.dtype == torch.float64 else x.float()
