"""Define the benchmarks: routing, training step, inference, memory, sweeps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from capsnet._support import dispatch
from capsnet._support.environment import environment
from capsnet._support.errors import CapsnetError
from capsnet.benchmark.measure import Result, interleaved, peak_extra_memory, quartiles
from capsnet.benchmark.plain_models import build_efficient_step, build_matrix_step, training_step
from capsnet.data.dataset import Batch
from capsnet.models import CapsNet
from capsnet.routing import Capsules, Windows, agree, find_routing, route

#: Allowed relative differences between fast and plain path, in float32, for outputs and for gradients.
OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
#: Largest memory, in bytes, of the reference's votes in the sweep, without gradients and copies.
MOST_VOTES = 2**30


class NoParity(CapsnetError):
    """Signal that a fast path and the reference disagree."""


@dataclass(frozen=True)
class Sizes:
    """Hold the sizes of a routing layer."""

    batch: int = 128
    in_caps: int = 1152
    in_dim: int = 8
    out_caps: int = 10
    out_dim: int = 16
    iterations: int = 3

    @property
    def votes(self) -> int:
        """Return the bytes of the votes û in float32."""
        return 4 * self.batch * self.in_caps * self.out_caps * self.out_dim

    def __str__(self) -> str:
        return f"{self.in_caps}×{self.in_dim} → {self.out_caps}×{self.out_dim}, r={self.iterations}, batch {self.batch}"


#: (device, plain) → a function that returns the tensors to compare.
Builder = Callable[[torch.device, bool], Callable[[], tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Case:
    """Define one benchmark: the same computation on the plain and on the fast path."""

    name: str
    build: Builder
    memory: bool = False
    """Whether to measure peak extra memory instead of time."""
    tolerance: float = OUTPUT_TOLERANCE
    warm_up: Builder | None = None
    """The same at a tiny size. It loads libraries and compiles kernels before memory is measured."""
    needs: int = 0
    """Bytes of memory that the plain path takes, where they are many."""
    rounds: int = 7
    """Smallest number of rounds."""


def build_routing(
    sizes: Sizes, backward: bool, device: torch.device, plain: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """Build routing alone, with realistic lengths of the children."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(sizes.batch, sizes.in_caps, sizes.in_dim, generator=generator) * 0.2
    shape = (sizes.in_caps, sizes.in_dim, sizes.out_caps, sizes.out_dim)
    weight = torch.empty(shape).normal_(std=0.1, generator=generator)
    seen = torch.randn(sizes.batch, sizes.out_caps, sizes.out_dim, generator=generator).to(device)
    u, weight = u.to(device).requires_grad_(backward), weight.to(device).requires_grad_(backward)
    backend = "reference" if plain else "auto"

    def run() -> tuple[Tensor, ...]:
        with nullcontext() if backward else torch.no_grad():
            v = route(u, weight, sizes.iterations, backend=backend)
        if not backward:
            return (v,)
        return v.detach(), *torch.autograd.grad(v, (u, weight), seen)

    return run


def build_agree(sizes: Sizes, device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build one pass of `agree` with EM's arguments, forward and backward."""
    u, weight = _children(sizes, device)
    generator = torch.Generator().manual_seed(1)
    shape = (sizes.batch, sizes.out_caps, sizes.out_dim)
    query, precision = (torch.randn(shape, generator=generator) for _ in range(2))
    offset = torch.randn(shape[:2], generator=generator)
    activations = torch.rand(sizes.batch, sizes.in_caps, generator=generator)
    others = (query, precision.square(), offset, activations)
    inputs = (u, weight, *(x.to(device).requires_grad_() for x in others))

    def run() -> tuple[Tensor, ...]:
        u, weight, query, precision, offset, activations = inputs
        outputs = agree(
            u,
            weight,
            query,
            precision=precision,
            offset=offset,
            activations=activations,
            backend="reference" if plain else "auto",
        )
        moments = [x for x in outputs if x is not None]
        return *(x.detach() for x in moments), *torch.autograd.grad(
            moments, inputs, [x.detach() for x in moments]
        )

    return run


def build_routing_by_name(
    name: str, sizes: Sizes, device: torch.device, plain: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """Build a registered routing with its parameters, forward and backward."""
    u, weight = _children(sizes, device)
    routing: Any = find_routing(name, backend="reference" if plain else "auto")
    routing.build(weight)

    def run() -> tuple[Tensor, ...]:
        found = routing.route(u, weight)
        parents = tuple(found) if isinstance(found, Capsules) else (found,)
        seen = [torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(device) for x in parents]
        return *(x.detach() for x in parents), *torch.autograd.grad(parents, (u, weight), seen)

    return run


def build_matrix_capsules(batch: int, device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build EM routing of a convolutional layer of matrix capsules, forward and backward: 32 → 32 types, 3×3."""
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(batch, 32, 14, 14, 4, 4, generator=generator).to(device).requires_grad_()
    activations = torch.rand(batch, 32, 14, 14, generator=generator).to(device).requires_grad_()
    windows = Windows(14, 14, kernel=3, stride=2)
    weight = torch.randn(9 * 32, 4, 32, 4, generator=generator).div(2).to(device).requires_grad_()
    routing: Any = find_routing("em", backend="reference" if plain else "auto")
    routing.build(weight)
    inputs = (poses, activations, weight)

    def run() -> tuple[Tensor, ...]:
        parents = routing.route(windows.gather(poses), weight, activations=windows.gather(activations))
        seen = [torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(device) for x in parents]
        return *(x.detach() for x in parents), *torch.autograd.grad(tuple(parents), inputs, seen)

    return run


def _children(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Children of the lengths that squash gives, and W; both want gradients."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(sizes.batch, sizes.in_caps, sizes.in_dim, generator=generator) * 0.2
    shape = (sizes.in_caps, sizes.in_dim, sizes.out_caps, sizes.out_dim)
    weight = torch.empty(shape).normal_(std=0.1, generator=generator)
    return u.to(device).requires_grad_(), weight.to(device).requires_grad_()


def build_step(device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build a training step of the published network at batch 128."""
    torch.manual_seed(0)
    model = CapsNet().to(device)
    images = torch.rand(128, 1, 28, 28).to(device)
    batch = Batch(images, torch.arange(128, device=device)[:, None] % 10, images[:, None])
    return training_step(model, lambda: model.loss(batch)["loss"], plain)


def build_inference(size: int, device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build inference with the published network: images to class capsules."""
    torch.manual_seed(0)
    model = CapsNet().to(device).eval()
    images = torch.rand(size, 1, 28, 28).to(device)

    def run() -> tuple[Tensor, ...]:
        with dispatch.disabled() if plain else nullcontext(), torch.no_grad():
            return (model(images),)

    return run


PAPER = Sizes()
LARGE = Sizes(batch=32, in_caps=32_768, out_caps=100)
SMALL = Sizes(batch=2, in_caps=4)
TINY = partial(build_routing, SMALL, True)

#: The routings that are made from `agree`.
ON_AGREE = ("self-attention", "em", "inverted-attention", "variational-bayes")


def _time_and_memory(name: str, build: Builder, warm_up: Builder, **options: Any) -> tuple[Case, Case]:
    """Return the two cases of one computation, forward and backward."""
    return (
        Case(f"{name} forward + backward", build, tolerance=GRADIENT_TOLERANCE, **options),
        Case(f"{name} memory, forward + backward", build, memory=True, warm_up=warm_up, **options),
    )


#: The cases in the table of docs/speed.md.
CASES = (
    Case("routing forward", partial(build_routing, PAPER, False)),
    Case("routing forward + backward", partial(build_routing, PAPER, True), tolerance=GRADIENT_TOLERANCE),
    Case("training step, batch 128", build_step, tolerance=GRADIENT_TOLERANCE),
    Case("efficient-capsnet, training step", build_efficient_step, tolerance=GRADIENT_TOLERANCE),
    Case(
        "matrix-capsules, training step",
        partial(build_matrix_step, 4),
        tolerance=GRADIENT_TOLERANCE,
        needs=4 * 10**9,
        rounds=3,
    ),
    Case("inference, batch 128", partial(build_inference, 128), tolerance=GRADIENT_TOLERANCE),
    Case("inference, batch 1", partial(build_inference, 1), tolerance=GRADIENT_TOLERANCE),
    Case(
        "routing memory, forward + backward", partial(build_routing, PAPER, True), memory=True, warm_up=TINY
    ),
    *_time_and_memory("agree", partial(build_agree, PAPER), partial(build_agree, SMALL)),
    *(
        case
        for name in ON_AGREE
        for case in _time_and_memory(
            name, partial(build_routing_by_name, name, PAPER), partial(build_routing_by_name, name, SMALL)
        )
    ),
    *_time_and_memory(
        "em, convolutional",
        partial(build_matrix_capsules, 32),
        partial(build_matrix_capsules, 1),
        needs=14 * 10**9,
        rounds=3,
    ),
)


def measure(case: Case, device: torch.device, seconds: float = 10.0) -> Result:
    """Check the parity of a case's two paths, then measure their time or memory.

    Raises:
        NoParity: the paths give different results.
    """
    plain, quick = case.build(device, True), case.build(device, False)
    parity = largest_difference(quick(), plain())
    tolerance = GRADIENT_TOLERANCE if case.memory else case.tolerance
    if not parity <= tolerance:
        raise NoParity(
            f"{case.name}: fast and plain path differ by {parity:.1e}; at most {tolerance:.0e} is allowed, so no "
            "speed-up is reported"
        )
    if case.memory:
        del plain, quick
        reference, quick_one = (
            float(
                peak_extra_memory(
                    partial(case.build, device, path),
                    device,
                    None if case.warm_up is None else partial(case.warm_up, device, path),
                )
            )
            for path in (True, False)
        )
        return Result(
            case.name,
            "bytes",
            reference,
            quick_one,
            None,
            None,
            1,
            parity,
        )
    times = interleaved({"plain": plain, "fast": quick}, device, seconds, case.rounds)
    return Result(
        case.name,
        "seconds",
        statistics.median(times["plain"]),
        statistics.median(times["fast"]),
        quartiles(times["plain"]),
        quartiles(times["fast"]),
        len(times["fast"]),
        parity,
    )


def sweep(device: torch.device, seconds: float = 1.0) -> Iterator[tuple[Sizes, Result]]:
    """Measure routing for growing numbers of children, parents and iterations.

    Forward and backward are measured together. The reference is skipped if its votes alone exceed `MOST_VOTES`.
    """
    small = replace(PAPER, batch=32)
    grid = [replace(small, in_caps=size) for size in (288, 1152, 4608, 18_432)]
    grid += [replace(small, out_caps=size) for size in (2, 50, 100, 250)]
    grid += [replace(small, iterations=count) for count in (1, 2, 5, 10)]
    for sizes in (*grid, LARGE):
        build = partial(build_routing, sizes, True)
        name = f"routing {sizes}"
        if sizes.votes <= MOST_VOTES:
            yield sizes, measure(Case(name, build, tolerance=GRADIENT_TOLERANCE), device, seconds)
            yield sizes, measure(Case(name, build, memory=True, warm_up=TINY), device)
            continue
        times = interleaved({"fast": build(device, False)}, device, seconds, least=2)["fast"]
        yield sizes, Result(name, "seconds", None, statistics.median(times), None, None, len(times), None)
        weight = peak_extra_memory(partial(build, device, False), device, partial(TINY, device, False))
        yield sizes, Result(name, "bytes", None, float(weight), None, None, 1, None)


def largest_difference(fast_values: tuple[Tensor, ...], plain_values: tuple[Tensor, ...]) -> float:
    """Return the largest ‖a − b‖ / ‖b‖, or NaN if a value is not finite."""
    differences = []
    for ours, reference in zip(fast_values, plain_values, strict=True):
        a, b = ours.double(), reference.double()
        differences.append(float((a - b).norm() / b.norm()))
    return max(differences) if all(map(isfinite, differences)) else float("nan")


def describe(results: list[Result]) -> list[dict[str, Any]]:
    """Return rows for CSV and JSON: each result with machine, versions and commit."""
    about = environment()
    versions = about.pop("versions")
    return [{**result.as_dict(), **about, **versions} for result in results]
