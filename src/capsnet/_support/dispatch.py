"""Choose between a fast path and the plain path that it is compared with.

A fast path is our own code in place of PyTorch's operators. Tracing, function transforms, dispatch modes and tensor
subclasses use the plain path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

_disabled_depth = 0


def enabled() -> bool:
    """Return whether fast paths are on: `CAPSNET_FAST` is not 0, no `disabled()`."""
    return _disabled_depth == 0 and os.environ.get("CAPSNET_FAST", "1") != "0"


@contextmanager
def disabled() -> Iterator[None]:
    """Use only the plain paths, in the whole process, while the block is open."""
    global _disabled_depth  # noqa: PLW0603  torch.compile can guard on a module's integer, not on a ContextVar
    _disabled_depth += 1
    try:
        yield
    finally:
        _disabled_depth -= 1


def may_stand_in(*tensors: Tensor) -> bool:
    """Return whether a fast path may replace an eager operation on these tensors.

    False while operators are traced, transformed (`torch.func`) or counted (a dispatch mode such as
    `FlopCounterMode`). False also for tensor subclasses (fake, distributed), for layouts other than strided, and for
    forward-mode duals.
    """
    return (
        enabled()
        and not torch._C._get_tracing_state()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and all(_is_plain(tensor) for tensor in tensors)
    )


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout == torch.strided
        and not tensor.is_meta
        and not tensor.is_neg()
        and forward_ad.unpack_dual(tensor).tangent is None  # type: ignore[no-untyped-call]
    )


def backward_needs_operators(gradient: Tensor) -> bool:
    """Return whether the backward pass must consist of PyTorch operators.

    That is so for second derivatives (`create_graph=True`) and for batched gradients.

    Args:
        gradient: the gradient of the output. `torch.autograd.grad(is_grads_batched=True)` still uses the old `vmap`,
            older than `torch.func`.
    """
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(gradient)
    )


def plain_gradients(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    gradient: Float[Tensor, "..."] | tuple[Float[Tensor, "..."], ...],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Return the gradients of function(*inputs), computed with PyTorch operators.

    Args:
        function: the plain path.
        inputs: the inputs of the fast path.
        gradient: the gradient of the output, or one for each output.
        wanted: which inputs need a gradient (`ctx.needs_input_grad`).
    """
    with torch.enable_grad():
        # Views, so that a dependence of one input on another is not differentiated twice.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        chosen = [alias for alias, want in zip(aliases, wanted, strict=True) if alias is not None and want]
        outputs, gradients = function(*aliases), gradient
        if isinstance(outputs, Tensor) or isinstance(gradients, Tensor):
            outputs, gradients = (cast(Tensor, outputs),), (cast(Tensor, gradient),)
        pairs = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        found: Iterator[Tensor | None] = iter([None] * len(chosen))
        if pairs:
            ends, their = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(ends, chosen, their, create_graph=True, allow_unused=True))
    return [
        next(found) if alias is not None and want else None
        for alias, want in zip(aliases, wanted, strict=True)
    ]


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off on the device, for a block. Meta tensors have no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
