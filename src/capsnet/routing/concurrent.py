"""Concurrent routing of a stack of capsule layers, as in inverted attention (Tsai et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from capsnet.routing.registry import check_iterations


def route_concurrently(
    layers: Sequence[Callable[[Tensor, Tensor | None], Tensor]], u: Tensor, iterations: int = 2
) -> list[Tensor]:
    """Route a stack of layers, all updated at once in every iteration but the first.

    The first iteration is an ordinary forward pass with uniform couplings. Each later one updates every layer from the
    values of the iteration before.

    Args:
        layers: functions (children, parents or None) → parents, such as `InvertedAttention.update`.
        u: the first layer's children.
        iterations: at least 1.

    Returns:
        Every layer's parents after the last iteration.
    """
    check_iterations("route_concurrently", iterations)
    values: list[Tensor] = []
    for layer in layers:
        values.append(layer(values[-1] if values else u, None))
    for _ in range(iterations - 1):
        children = [u, *values[:-1]]
        values = [layer(*given) for layer, *given in zip(layers, children, values, strict=True)]
    return values
