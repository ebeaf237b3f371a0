"""One switch between the fast paths and the plain ones they are compared with, and when a fast one may stand in.

A fast path is code of our own in place of PyTorch's operators. Whoever looks at the operators, or brings a tensor that
is more than numbers in memory, gets the plain path.
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
    """Whether fast paths may be picked: `CAPSNET_FAST` is not 0, and no `disabled()` block is open."""
    return _disabled_depth == 0 and os.environ.get("CAPSNET_FAST", "1") != "0"


@contextmanager
def disabled() -> Iterator[None]:
    """Use the plain paths only, in the whole process, for as long as the block is open."""
    global _disabled_depth  # noqa: PLW0603  torch.compile guards on a module's integer, not on a ContextVar
    _disabled_depth += 1
    try:
        yield
    finally:
        _disabled_depth -= 1


def may_stand_in(*tensors: Tensor) -> bool:
    """Whether a fast path may be picked, in eager mode, for an operation on these tensors.

    Not while operators are traced, transformed (`torch.func`) or watched (a dispatch mode such as
    `FlopCounterMode`), nor for tensor subclasses (fake, distributed), other layouts and forward-mode duals.
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
    """Whether gradients are to be differentiated again (`create_graph=True`) or come in batches.

    gradient: the output's. `torch.autograd.grad(is_grads_batched=True)` still uses the `vmap` of before `torch.func`.
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
    """The gradients of function(*inputs), made of operators: for a backward pass that needs them.

    Args:
        function: the plain path.
        inputs: what the fast path was called with.
        gradient: that of the output, or one for each output.
        wanted: which inputs' gradients are asked for (`ctx.needs_input_grad`).
    """
    with torch.enable_grad():
        # Aliases: where one input was made from another, the way from one to the other is not part of this function.
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
    """A block in which autocast is off on the device; meta tensors have none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
