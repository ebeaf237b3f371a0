"""One pass of `capsnet.routing.agree` on CUDA devices in Triton: the votes never leave the multiprocessor.

Forward is one pass over the children, split over programs whose sums are added in a fixed order. Backward is one pass
for all gradients but W's, and one for W's, which sums over samples: it finds couplings again from the softmax's totals.
No atomics, and launch shapes follow from the sizes alone, as in `backend.py`. Products are multiplied number by number
in the inputs' own precision.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from capsnet.routing import agree_chunked
from capsnet.routing.agree_reference import Inputs
from capsnet.routing.cuda import backend

Optional = Tensor | None

#: Numbers of a tile of votes: what a program's registers hold beside the parents' numbers.
TILE = 2048

TAKES = "floats on an NVIDIA GPU from Ampere on, with Triton installed"


def is_available(u: Tensor) -> bool:
    """Return whether u can be routed here; with TRITON_INTERPRET=1 in the environment also on a CPU, slowly."""
    if u.is_cuda:
        fits = torch.version.hip is None and torch.cuda.get_device_capability(u.device) >= (8, 0)
    else:
        fits = u.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return fits and u.dtype in {torch.float32, torch.float64} and backend.is_installed()


def forward(given: Inputs, leaky: bool, wants_log_sums: bool) -> tuple[Tensor, ...]:
    """Return the moments or log-sums; see `capsnet.routing.agree_backends`."""
    run = _Run(given, leaky, wants_log_sums)
    if not run.fits:
        return agree_chunked.forward(given, leaky, wants_log_sums)
    from capsnet.routing.cuda import agree_kernels as kernels

    log_sums = _empty(given.u, given.u.shape[:2]) if wants_log_sums else given.u
    partial = [given.u] * 3 if wants_log_sums else run.partial()
    with torch.cuda.device_of(given.u):  # type: ignore[no-untyped-call]
        kernels.moments[run.grid](*run.inputs, *partial, log_sums, *run.counts, run.share, **run.constants)
    return (log_sums,) if wants_log_sums else run.moments(partial)


def backward(
    gradients: tuple[Tensor, ...],
    given: Inputs,
    leaky: bool,
    wants_log_sums: bool,
    place: tuple[Tensor, Tensor] | None = None,
) -> tuple[Optional, ...]:
    """Return the gradients of all inputs but the centre."""
    run = _Run(given, leaky, wants_log_sums)
    if not run.fits:
        return agree_chunked.backward(gradients, given, leaky, wants_log_sums, place)
    from capsnet.routing.cuda import agree_kernels as kernels

    u = given.u
    if wants_log_sums:
        seen = [u, u, u, gradients[0].contiguous()]
    else:
        dcount, dfirst, *more = (x.contiguous() for x in gradients)
        seen = [dcount, dfirst, more[0] if more else u, u]
    du, dweight = _empty(u, u.shape), _empty(u, given.weight.shape)
    da, log_totals = _empty(u, u.shape[:2]), _empty(u, u.shape[:2])
    partial = run.partial()
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        kernels.gradients[run.grid](
            *run.inputs, *seen, *partial, du, da, log_totals, *run.counts, run.share, **run.constants
        )
        kernels.weight_gradient[(u.shape[1], given.weight.shape[2])](
            *run.inputs,
            *seen,
            da,
            log_totals,
            dweight,
            *run.counts,
            **{**run.constants, "BB": min(32, _power_of_two(len(u)))},
            CP=_power_of_two(given.weight.shape[1]),
        )
    if place is not None:
        du, dweight = place[0].add_(du), place[1].add_(dweight)
    doffset, dquery, *dbent = run.moments(partial)
    dnormaliser = None
    if given.normaliser is not None:
        dnormaliser = -da if given.activations is None else -da * given.activations
    return (
        du,
        dweight,
        None if given.query is None else dquery,
        dbent[0] / -2 if dbent else None,
        None if given.offset is None else doffset,
        None if given.activations is None else da,
        dnormaliser,
    )


class _Run:
    """One call's sizes, inputs and constants."""

    def __init__(self, given: Inputs, leaky: bool, wants_log_sums: bool) -> None:
        u, weight = given.u, given.weight
        _, in_dim, parents, dim = weight.shape
        rows = u.shape[2] if u.ndim == 4 else 1
        padded = [_power_of_two(x) for x in (rows, parents, dim)]
        votes = padded[0] * padded[1] * padded[2]
        self.given, self.fits = given, min(u.numel(), weight.numel()) > 0 and votes <= TILE
        if not self.fits:
            return
        bent = None if given.precision is None else given.precision / -2
        optional = (given.query, bent, given.offset, given.activations, given.normaliser, given.centre)
        self.inputs = [x.contiguous() for x in (u, weight, *(u if x is None else x for x in optional))]
        self.counts = u.shape[:2]
        samples = min(_power_of_two(len(u)), TILE // votes)
        blocks = -(-len(u) // samples)
        shares = max(1, round(3 * backend.processors(u.device) / blocks))
        self.share = -(-u.shape[1] // shares)
        self.grid = (blocks, -(-u.shape[1] // self.share))
        names = ("QUERY", "PRECISION", "OFFSET", "A", "Z", "CENTRE")
        self.constants: dict[str, Any] = {
            **{f"HAS_{name}": x is not None for name, x in zip(names, optional, strict=True)},
            **dict(zip(("RP", "JP", "DP"), padded, strict=True)),
            **{"C": in_dim, "R": rows, "J": parents, "D": dim, "BB": samples},
            **{"LEAKY": leaky, "LOG_SUMS": wants_log_sums},
        }

    def partial(self) -> list[Tensor]:
        """Return memory for each program's counts, first and second moments."""
        u, parents = self.given.u, self.given.weight.shape[2]
        programs = (self.grid[1], len(u), parents)
        poses = [_empty(u, *programs, self.given.dim) for _ in range(1 + self.constants["HAS_PRECISION"])]
        return [_empty(u, programs), *poses, *[u] * (2 - len(poses))]

    def moments(self, partial: list[Tensor]) -> tuple[Tensor, ...]:
        """Add up what the programs found."""
        return tuple(x.sum(0) for x in partial[: 2 + self.constants["HAS_PRECISION"]])


def _empty(like: Tensor, *shape: Any) -> Tensor:
    """Return fresh memory; parts of the shape may be tuples."""
    sizes = [n for part in shape for n in (part if isinstance(part, tuple) else (part,))]
    return torch.empty(sizes, dtype=like.dtype, device=like.device)


def _power_of_two(x: int) -> int:
    return 1 << (x - 1).bit_length()
