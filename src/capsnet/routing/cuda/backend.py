"""Routing on CUDA devices in Triton: the votes are never stored, and never leave the multiprocessor.

One pass over the children for each iteration, forward and backward, and one last pass for the gradients of
u and W; `kernels` says how a pass works. A pass splits the children over programs, whose partial sums
are added in a fixed order, not with atomics: the same inputs give the same bits in every run. Launch shapes
follow from the sizes alone, never from timings at run time, so nothing depends on what ran before, nothing
waits for the device, and forward and backward can be captured in a CUDA graph.

float32 is multiplied on tensor cores as three tf32 products of high and low parts: float32's accuracy. Where
u and W are both bfloat16, what meets them in a product is rounded to bfloat16, too; where one of them has 16
bits, products are tf32, which holds bfloat16 and float16 exactly. All sums are float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capsnet.routing import chunked
from capsnet.routing.backends import Batched, Bias, Parents, Sums, Weight
from capsnet.routing.reference import Gradient

#: Beyond these a tile no longer fits a program's registers: the chunked backend, exact too, takes over.
MAX_IN_DIM, MAX_OUT_CAPS, MAX_OUT_DIM = 32, 32, 64

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Launch:
    """What a program holds at a time, and what runs it; max_registers bounds a thread's, for occupancy."""

    samples: int
    children: int
    num_warps: int
    num_stages: int
    max_registers: int | None = None


@dataclass(frozen=True)
class Plan:
    """Launch shapes of a pass over the children, forward or backward, and of the last pass."""

    reduction: Launch
    gradients: Launch
    children_per_program: int
    """Of a reduction; a program's partial sums are one contribution to s."""


TAKES = "floats of 16 or 32 bits on an NVIDIA GPU from Ampere on, with Triton installed"


def is_available(u: Batched) -> bool:
    """Return whether it can route u: 16- or 32-bit floats on an NVIDIA GPU from Ampere on, with Triton installed.

    With TRITON_INTERPRET=1 in the environment Triton runs on the CPU, slowly: for tests.
    """
    if u.is_cuda:
        fits = torch.version.hip is None and torch.cuda.get_device_capability(u.device) >= (8, 0)
    else:
        fits = u.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return fits and u.dtype in _DTYPES and is_installed()


@cache
def is_installed() -> bool:
    """Return whether Triton is installed."""
    return find_spec("triton") is not None


def forward(
    u: Batched, weight: Weight, bias: Bias | None, iterations: int, leaky: bool
) -> tuple[Parents, Sums]:
    """Return the parents v and the sums s of every iteration; see `capsnet.routing.backends`."""
    if not _fits(u, weight, iterations):
        return chunked.forward(u, weight, bias, iterations, leaky)
    from capsnet.routing.cuda import kernels

    run = _Run(u, weight, leaky)
    s_all = run.empty(iterations, *run.parents)
    v_sum = run.empty(*run.parents, dtype=run.operand)
    v = run.empty(*run.parents, dtype=torch.promote_types(u.dtype, weight.dtype))
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        for t in range(iterations):
            partial = run.sum_votes(v_sum, uniform=t == 0)
            kernels.finish_iteration[run.rows_grid](
                partial,
                v if bias is None else bias.contiguous(),
                s_all,
                v_sum,
                v,
                t,
                len(partial),
                run.n_rows,
                J=run.out_caps,
                **run.rows,
                NP=_power_of_two(len(partial), 1, 128),
                BIAS=bias is not None,
                LAST=t == iterations - 1,
            )
    return v, s_all


def backward(
    dv: Parents,
    u: Batched,
    weight: Weight,
    bias: Bias | None,
    s_all: Sums,
    iterations: int,
    leaky: bool,
    gradient: Gradient,
) -> tuple[Batched, Weight, Bias | None]:
    """Return the gradients of u, weight and bias; see `capsnet.routing.backends`."""
    if not _fits(u, weight, iterations):
        return chunked.backward(dv, u, weight, bias, s_all, iterations, leaky, gradient)
    from capsnet.routing.cuda import kernels

    run = _Run(u, weight, leaky)
    s_all = s_all.contiguous()
    v_sums = run.empty(*s_all.shape, dtype=run.operand)
    ds_all = torch.empty_like(v_sums)
    dv_sum = run.empty(*run.parents)
    # of the softmax over parents in iterations 2 to r: log Σ_j exp b_j, and Σ_j c_j dc_j
    log_totals = run.empty(max(1, iterations - 1), run.batch, run.in_caps)
    mean_dcs = torch.empty_like(log_totals)
    last = iterations - 1
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        kernels.start_backward[run.rows_grid](
            dv.contiguous(), s_all, v_sums, ds_all[last], run.n_rows, **run.rows, ITERATIONS=iterations
        )
        for t in range(last, 0, -1):
            partial = run.sum_votes(v_sums[t], ds_all[t], log_totals[t - 1], mean_dcs[t - 1])
            if gradient == "last":
                break  # the couplings are constants: only this pass's softmax totals are needed
            kernels.step_backward[run.rows_grid](
                partial,
                s_all[t - 1],
                dv_sum,
                ds_all[t - 1],
                len(partial),
                run.n_rows,
                **run.rows,
                NP=_power_of_two(len(partial), 1, 128),
                FIRST=t == last,
            )
        du = torch.empty_like(run.u)
        dweight = torch.empty_like(run.weight, dtype=torch.float32)
        launch = run.plan.gradients
        kernels.input_gradients[(_ceil_div(run.in_caps, launch.children),)](
            run.u,
            run.weight,
            v_sums,
            ds_all,
            log_totals,
            mean_dcs,
            du,
            dweight,
            run.batch,
            run.in_caps,
            **run.tile(launch),
            ITERATIONS=iterations,
            THROUGH_COUPLINGS=gradient == "all",
        )
        if bias is None:
            return du, dweight.to(weight.dtype), None
        ds = ds_all if gradient == "all" else ds_all[last:]
        return du, dweight.to(weight.dtype), ds.sum((0, 1), dtype=torch.float32).to(bias.dtype)


@cache
def plan_for(u_shape: torch.Size, weight_shape: torch.Size, precision: str, processors: int) -> Plan:
    """Launch shapes for these sizes on a device with that many multiprocessors.

    Chosen by measurement at the paper's sizes on an H100. For other sizes tiles shrink, so that a thread holds
    about as many numbers: an accumulator and the logits of each parent.
    """
    batch, in_caps, in_dim = u_shape
    out_caps, out_dim = weight_shape[2:]
    # a tile's columns are the inner size of a tensor core's product, 16 at least
    least = _ceil_div(16, _power_of_two(in_dim, 1, MAX_IN_DIM))
    is_wide = out_caps * _power_of_two(out_dim, 16, MAX_OUT_DIM) > 256
    samples, warps = (16, 1) if is_wide or batch <= 16 else (32, 2)
    reduction = Launch(
        samples, max(least, 1 if is_wide else 2), warps, num_stages=3 if precision == "bf16" else 2
    )
    gradients = Launch(
        _power_of_two(batch, 16, 64),
        max(least, 4 if precision == "bf16" else 2),
        num_warps=4,
        num_stages=2,
        max_registers=168 if precision == "bf16" else None,
    )
    shares = max(1, round(3 * processors / _ceil_div(batch, samples)))
    share = _ceil_div(_ceil_div(in_caps, shares), reduction.children) * reduction.children
    return Plan(reduction, gradients, children_per_program=share)


class _Run:
    """One call's sizes, buffers and constants."""

    def __init__(self, u: Batched, weight: Weight, leaky: bool) -> None:
        self.u, self.weight = u.contiguous(), weight.contiguous()
        self.batch, self.in_caps, self.in_dim = u.shape
        self.out_caps, self.out_dim = weight.shape[2:]
        self.parents = (self.batch, self.out_caps, self.out_dim)
        self.n_rows = self.batch * self.out_caps
        self.leaky = leaky
        self.precision = _precision(u, weight)
        self.operand = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.padded_dim = _power_of_two(self.out_dim, 16, MAX_OUT_DIM)
        self.plan = plan_for(u.shape, weight.shape, self.precision, processors(u.device))
        self.rows = {"D": self.out_dim, "DP": self.padded_dim, "ROWS": 4}
        self.rows_grid = (_ceil_div(self.n_rows, 4),)
        n_partials = _ceil_div(self.in_caps, self.plan.children_per_program)
        self.partial = self.empty(n_partials, *self.parents)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.u.device)

    def tile(self, launch: Launch) -> dict[str, Any]:
        """Constants of a kernel that works on tiles of samples and children."""
        limit = {} if launch.max_registers is None else {"maxnreg": launch.max_registers}
        return limit | {
            "C": self.in_dim,
            "J": self.out_caps,
            "D": self.out_dim,
            "CP": _power_of_two(self.in_dim, 1, MAX_IN_DIM),
            "DP": self.padded_dim,
            "BB": launch.samples,
            "ICH": launch.children,
            "LEAKY": self.leaky,
            "PRECISION": self.precision,
            "num_warps": launch.num_warps,
            "num_stages": launch.num_stages,
        }

    def sum_votes(
        self, v_sum: Tensor, *softmax_state: Tensor, uniform: bool = False
    ) -> Float[Tensor, "programs batch out_caps out_dim"]:
        """One pass over all children; softmax_state (ds, log_total, mean_dc) makes it a pass backward."""
        from capsnet.routing.cuda import kernels

        launch = self.plan.reduction
        if uniform:  # no logits to hold: room for twice the children
            launch = replace(launch, children=2 * launch.children)
        kernels.sum_votes[(_ceil_div(self.batch, launch.samples), len(self.partial))](
            self.u,
            self.weight,
            v_sum,
            *(softmax_state or (v_sum, v_sum, v_sum)),
            self.partial,
            self.batch,
            self.in_caps,
            self.plan.children_per_program,
            UNIFORM=uniform,
            BACKWARD=bool(softmax_state),
            **self.tile(launch),
        )
        return self.partial


def _precision(u: Tensor, weight: Tensor) -> str:
    """Of products, by the less precise input; see `kernels._dot`."""
    if u.dtype == weight.dtype == torch.float32:
        return "float32"
    if u.dtype == weight.dtype == torch.bfloat16 and u.is_cuda:  # Triton's interpreter cannot multiply it
        return "bf16"
    return "tf32"


def _fits(u: Tensor, weight: Tensor, iterations: int) -> bool:
    in_dim, out_caps, out_dim = weight.shape[1:]
    return (
        weight.dtype in _DTYPES
        and min(u.numel(), weight.numel()) > 0
        and in_dim <= MAX_IN_DIM
        and out_caps <= MAX_OUT_CAPS
        and out_dim <= MAX_OUT_DIM
        and iterations * len(u) * out_caps * out_dim
        < 2**31  # the kernels' offsets into the sums have 32 bits
    )


@cache
def processors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU; a few when interpreting on the CPU."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def _ceil_div(x: int, y: int) -> int:
    return -(-x // y)


def _power_of_two(x: int, at_least: int, at_most: int) -> int:
    """Return the smallest power of two from x on, within bounds that are powers of two."""
    return min(max(1 << (x - 1).bit_length(), at_least), at_most)
