"""One pass of `capsnet.routing.agree` on a CPU: Numba kernels, several threads, float32 and float64.

Every sum has a fixed order with any number of threads, and a sample's moments do not depend on its batch, as in
`backend.py`.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capsnet._support import threads
from capsnet.routing import agree_chunked
from capsnet.routing.agree_reference import Inputs
from capsnet.routing.cpu.backend import LANES, PARTS, TASK, announcing_compilation

Optional = Tensor | None

#: Samples that go through a pass at a time: their partial sums have at most this many numbers, or 256 samples.
_SUMS, _SAMPLES = 2**20, 256

TAKES = "floats of 32 or 64 bits on a CPU, with Numba installed"


def is_available(u: Tensor) -> bool:
    """Return whether u can be routed here: on a CPU, in float32 or float64, with Numba installed."""
    return (
        u.device.type == "cpu" and u.dtype in {torch.float32, torch.float64} and _kernels(u.dtype) is not None
    )


def forward(given: Inputs, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]:
    """Return the moments or log-sums; see `capsnet.routing.agree_backends`."""
    if 0 in given.u.shape or 0 in given.weight.shape:
        return agree_chunked.forward(given, leaky, wants_log_sums)
    run = _Run(given, leaky, wants_log_sums)
    log_sums = given.u.new_empty((*given.u.shape[:2], 1) if wants_log_sums else (0, 0, 0))
    logits, found = run.half_of_logits(), []
    for group in run.groups():
        state = run.in_lanes([x[group] for x in (logits, *run.centres())])
        fixed = run.kernel_arguments(group, state)
        run.for_each(run.kernels.moments, fixed, (log_sums[group].numpy(),))
        found.append(run.sums(group))
    return (log_sums[..., 0],) if wants_log_sums else run.moments(torch.cat(found))


def backward(
    gradients: tuple[Tensor, ...],
    given: Inputs,
    leaky: bool,
    wants_log_sums: bool,
    place: tuple[Tensor, Tensor] | None = None,
) -> tuple[Optional, ...]:
    """Return the gradients of all inputs but the centre."""
    if 0 in given.u.shape or 0 in given.weight.shape:
        return agree_chunked.backward(gradients, given, leaky, wants_log_sums, place)
    run = _Run(given, leaky, wants_log_sums)
    if place is not None:  # W may be channels-last in memory
        whole, dweight = (x.contiguous() for x in place)
    else:
        whole, dweight = (x.new_empty(x.shape) for x in (given.u, given.weight))
    du, is_fresh = whole.view(run.u.shape), place is None
    da, dz = run.a.new_empty(run.a.shape), run.z.new_empty(run.z.shape)
    logits, found = run.half_of_logits(), []
    if wants_log_sums:
        dlogs, moments = gradients[0][..., None], torch.zeros_like(logits)
    else:
        dcount, dfirst, *more = gradients
        dlogs, moments = run.u.new_empty(0, 0, 0), run.half(dfirst, more[0] if more else None, dcount)
    for group in run.groups():
        state = run.in_lanes([x[group] for x in (logits, moments, *run.centres())])
        fixed = run.kernel_arguments(group, state)
        of_group = (du[group], dweight.view(-1), da[group], dz[group])
        more_arguments = (
            dlogs[group].numpy(),
            is_fresh,
            is_fresh and group.start == 0,
            *(x.numpy() for x in of_group),
        )
        run.for_each(run.kernels.gradients, fixed, more_arguments)
        found.append(run.sums(group))
    doffset, dquery, *dbent = run.moments(torch.cat(found))
    return (
        whole,
        dweight,
        None if given.query is None else dquery,
        dbent[0] / -2 if dbent else None,
        None if given.offset is None else doffset,
        None if given.activations is None else da[..., 0],
        None if given.normaliser is None else dz[..., 0],
    )


class _Run:
    """The sizes of a call, and its tensors as the kernels take them; see `agree_kernels`."""

    def __init__(self, given: Inputs, leaky: bool, wants_log_sums: bool) -> None:
        self.given, self.kernels = given, _kernels(given.u.dtype)
        weight = given.weight.detach().contiguous()
        _, in_dim, parents, dim = weight.shape
        rows = given.u.shape[2] if given.u.ndim == 4 else 1
        self.u, self.w = given.u.detach().reshape(*given.u.shape[:2], -1), weight.view(-1)
        none = self.u.new_empty(0, 0, 0)
        self.a, self.z = (
            none if x is None else x.detach()[..., None] for x in (given.activations, given.normaliser)
        )
        self.sizes = (in_dim, rows, parents, dim)
        self.is_quadratic = given.precision is not None
        self.options = (
            self.is_quadratic,
            *(x is not None for x in (given.activations, given.normaliser, given.centre)),
            leaky,
            wants_log_sums,
        )
        #: The children's parts: the same for any batch and number of threads.
        self.bounds = np.arange(PARTS + 1) * len(weight) // PARTS
        self.numbers = rows * parents * dim * (1 + self.is_quadratic) + parents
        fit = _SUMS // (PARTS * self.numbers) // LANES * LANES
        self.samples = max(LANES, min(_SAMPLES, fit))
        most = min(self.samples, _whole_lanes(len(self.u)))
        self.memory = self.u.new_empty(PARTS * most * self.numbers)

    def half(self, linear: Optional, quadratic: Optional, constants: Optional) -> Tensor:
        """Return factors of û, of û² and constants as one half, (batch, numbers)."""
        _, rows, parents, dim = self.sizes
        shape = (len(self.u), parents, rows * dim)
        parts = [linear, quadratic] if self.is_quadratic else [linear]
        flat = [
            self.u.new_zeros(len(self.u), parents * rows * dim) if x is None else self.rows_first(x.detach())
            for x in parts
        ]
        return torch.cat([*flat, self.u.new_zeros(shape[:2]) if constants is None else constants.detach()], 1)

    def half_of_logits(self) -> Tensor:
        """Return Q, −½ Λ and k."""
        bent = None if self.given.precision is None else self.given.precision / -2
        return self.half(self.given.query, bent, self.given.offset)

    def centres(self) -> list[Tensor]:
        """Return minus the votes' centres, where there are any."""
        return [] if self.given.centre is None else [-self.rows_first(self.given.centre)]

    def rows_first(self, poses: Tensor) -> Tensor:
        """Return (batch, out_caps, rows · out_dim) as (batch, rows · out_caps · out_dim)."""
        _, rows, parents, dim = self.sizes
        return poses.reshape(-1, parents, rows, dim).transpose(1, 2).flatten(1)

    def moments(self, sums: Tensor) -> tuple[Tensor, ...]:
        """Return the constants, the factors of û and those of û² of a half, each in the shape of the parents."""
        _, rows, parents, dim = self.sizes
        widths = [*[rows * parents * dim] * (1 + self.is_quadratic), parents]
        *factors, constants = torch.split(sums, widths, dim=1)
        poses = (x.view(-1, rows, parents, dim).transpose(1, 2).flatten(2) for x in factors)
        return (constants.contiguous(), *(x.contiguous() for x in poses))

    def groups(self) -> list[slice]:
        """Return the samples that go through a pass at a time."""
        count = len(self.u)
        return [slice(at, min(at + self.samples, count)) for at in range(0, count, self.samples)]

    def in_lanes(self, numbers: list[Tensor]) -> Any:
        """Return numbers of each sample, (samples, …) side by side, in lanes."""
        samples = len(numbers[0])
        whole = torch.cat(numbers, 1)
        padded = torch.nn.functional.pad(whole, (0, 0, 0, _whole_lanes(samples) - samples))
        return padded.view(-1, LANES, whole.shape[1]).transpose(1, 2).reshape(-1).numpy()

    def partial(self, samples: int) -> Tensor:
        """Return the memory for the sums of each part."""
        numbers = _whole_lanes(samples) * self.numbers
        return self.memory[: PARTS * numbers].view(PARTS, numbers)

    def sums(self, group: slice) -> Tensor:
        """Add up the parts, always in the same order, and return each sample's half."""
        samples = group.stop - group.start
        first, *others = self.partial(samples)
        total: Tensor = first.clone()
        for part in others:
            total += part
        return total.view(-1, self.numbers, LANES).transpose(1, 2).reshape(-1, self.numbers)[:samples]

    def kernel_arguments(self, group: slice, state: Any) -> tuple[Any, ...]:
        """Return what both kernels take first."""
        u, a, z = (x[group].numpy() for x in (self.u, self.a, self.z))
        return (u, self.w.numpy(), a, z, self.sizes, state, self.options, self.bounds)

    def for_each(self, kernel: Any, first: tuple[Any, ...], more: tuple[Any, ...]) -> None:
        """Call a kernel for all parts of the children."""
        samples = len(first[0])
        out = self.partial(samples).numpy()
        count = min(PARTS, max(1, _whole_lanes(samples) * self.sizes[1] * self.w.numel() // TASK))
        parts = pairwise(PARTS * n // count for n in range(count + 1))
        threads.for_each(kernel, ((*first, *part, out, *more) for part in parts))


def _whole_lanes(samples: int) -> int:
    return -(-samples // LANES) * LANES


@cache
def _kernels(dtype: torch.dtype) -> Any:
    """Return the kernels, compiled for the dtype; None without Numba."""
    with announcing_compilation() as has_numba:
        if not has_numba:
            return None
        from capsnet.routing.cpu import agree_kernels

        agree_kernels.compile_for(np.float64 if dtype == torch.float64 else np.float32)
    return agree_kernels
