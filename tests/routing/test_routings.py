"""The routings that are made from `agree`: against their equations, and as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from capsnet import CapsnetError, CapsuleLayer
from capsnet._support import dispatch
from capsnet.routing import (
    EM,
    Capsules,
    InvertedAttention,
    VariationalBayes,
    Windows,
    add_coordinates,
    em,
    inverted_attention,
    log_normaliser,
    route_concurrently,
    self_attention,
    variational_bayes,
)

NAMES = ("self-attention", "em", "inverted-attention", "variational-bayes")
F64: Any = {"dtype": torch.float64}


def problem(
    batch: int = 4,
    in_caps: int = 11,
    in_dim: int = 4,
    out_caps: int = 3,
    out_dim: int = 4,
    rows: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Children, W, activations, β_u and β_a."""
    generator = torch.Generator().manual_seed(batch + in_caps)
    draw = lambda *shape: torch.randn(shape, generator=generator, **F64)  # noqa: E731
    u = draw(batch, in_caps, *([rows] if rows else []), in_dim)
    weight = draw(in_caps, in_dim, out_caps, out_dim) / in_dim**0.5
    return u, weight, draw(batch, in_caps).sigmoid(), draw(out_caps), draw(out_caps)


def em_from_the_equations(
    votes: Any,
    a: Any,
    beta_u: Any,
    beta_a: Any,
    iterations: int,
    final: float,
    size: int | None = None,
    child: Any = None,
) -> tuple[Any, Any]:
    """Poses and activations, from votes (windows, in_caps, out_caps, dim).

    child: for an E step over all windows, of which `size` make a sample: which child of its sample each one in a window
    is, (windows of a sample, in_caps).
    """
    r = np.full(votes.shape[:3], 1 / votes.shape[2])
    for t in range(1, iterations + 1):
        r = r * a[:, :, None]
        total = r.sum(1)
        mu = np.einsum("bij,bijd->bjd", r, votes) / total[..., None]
        var = np.einsum("bij,bijd->bjd", r, (votes - mu[:, None]) ** 2) / total[..., None]
        cost = (beta_u[:, None] + np.log(np.sqrt(var))) * total[..., None]
        out = 1 / (1 + np.exp(-final * (1 - 0.95**t) * (beta_a - cost.sum(-1))))
        if t < iterations:
            exponent = ((votes - mu[:, None]) ** 2 / (2 * var[:, None])).sum(-1)
            p = np.exp(-exponent) / np.sqrt(np.prod(2 * np.pi * var, -1))[:, None]
            r = out[:, None] * p
            if size is None:
                r = r / r.sum(-1, keepdims=True)
                continue
            for sample in range(0, len(r), size):
                part, sums = r[sample : sample + size], np.zeros(child.max() + 1)
                np.add.at(sums, child, part.sum(-1))
                part /= sums[child][..., None]
    return mu, out


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("backend", ["reference", "chunked", "cpu"])
def test_em_follows_the_equations(backend: str, iterations: int, rows: int | None) -> None:
    u, weight, a, beta_u, beta_a = problem(in_caps=63, rows=rows)
    weight = weight / 3  # parents that each keep several children: a variance of 0 has no logarithm
    votes = torch.einsum("birc,icjd->bijrd" if rows else "bic,icjd->bijd", u, weight).flatten(3).numpy()
    expected = em_from_the_equations(votes, a.numpy(), beta_u.numpy(), beta_a.numpy(), iterations, 0.4)
    found = em(u, weight, a, beta_u, beta_a, iterations, inverse_temperature=0.4, backend=backend)
    assert found.poses.shape[:2] == (4, 3)
    np.testing.assert_allclose(found.poses.flatten(2), expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.activations, expected[1], rtol=1e-6)


def test_em_in_float32_keeps_the_variance_of_votes_that_almost_agree() -> None:
    u, weight, a, beta_u, beta_a = problem(in_caps=63)
    u, weight = 1 + u / 1000, weight[:1].expand(63, -1, -1, -1).contiguous()  # votes differ by a thousandth
    exact = em(u, weight, a, beta_u, beta_a, 2, inverse_temperature=0.1, backend="reference")
    for backend in ("reference", "chunked", "cpu"):
        narrow = (x.float() for x in (u, weight, a, beta_u, beta_a))
        found = em(*narrow, 2, inverse_temperature=0.1, backend=backend)
        score = found.activations.double().logit()
        torch.testing.assert_close(score, exact.activations.logit(), rtol=0, atol=5e-3)


@pytest.mark.parametrize("every_window", [False, True])
def test_em_of_a_whole_convolutional_layer_follows_the_equations(every_window: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    poses = torch.randn(2, 3, 5, 7, 4, 4, generator=generator, **F64)
    activations = torch.rand(2, 3, 5, 7, generator=generator, **F64)
    weight = torch.randn(27, 4, 3, 4, generator=generator, **F64) / 2
    _, _, _, beta_u, beta_a = problem()
    windows = Windows(5, 7, kernel=3, stride=2)
    high, wide = windows.size
    assert (high, wide) == (2, 3)
    fold = windows.fold if every_window else None
    u, a = windows.gather(poses), windows.gather(activations)
    found = em(u, weight, a, beta_u, beta_a, 3, fold=fold)
    votes, acts, child = np.zeros((2, 2, 3, 27, 3, 16)), np.zeros((2, 2, 3, 27)), np.zeros((2, 3, 27), int)
    for y in range(2):
        for x in range(3):
            for n, (ky, kx, i) in enumerate(np.ndindex(3, 3, 3)):
                at = 2 * y + ky, 2 * x + kx
                pose = poses[:, i, at[0], at[1]].numpy()
                votes[:, y, x, n] = np.einsum("brc,cjd->bjrd", pose, weight[n].numpy()).reshape(2, 3, 16)
                acts[:, y, x, n] = activations[:, i, at[0], at[1]]
                child[y, x, n] = (at[0] * 7 + at[1]) * 3 + i
    sizes = (6, child.reshape(6, 27)) if every_window else (None, None)
    expected = em_from_the_equations(
        votes.reshape(12, 27, 3, 16), acts.reshape(12, 27), beta_u.numpy(), beta_a.numpy(), 3, 0.01, *sizes
    )
    np.testing.assert_allclose(found.poses.flatten(2), expected[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.activations, expected[1], rtol=1e-6)
    parents = windows.spread(found.poses)
    assert parents.shape == (2, 3, 2, 3, 4, 4)
    torch.testing.assert_close(parents[1, :, 1, 2], found.poses[11])


def bayes_from_the_equations(
    votes: Any, a: Any, beta_u: Any, beta_a: Any, iterations: int
) -> tuple[Any, Any]:
    dim, r = votes.shape[3], np.full(votes.shape[:3], 1 / votes.shape[2])
    digamma = lambda x: torch.digamma(torch.as_tensor(x)).numpy()  # noqa: E731
    for t in range(iterations):
        r = r * a[:, :, None]
        total = r.sum(1)
        mu = np.einsum("bij,bijd->bjd", r, votes) / total[..., None]
        spread = np.einsum("bij,bijd->bjd", r, (votes - mu[:, None]) ** 2)
        kappa, nu = 1 + total, dim + 1 + total
        m = total[..., None] * mu / kappa[..., None]
        psi = 1 / (1 + spread + (total / kappa)[..., None] * mu**2)
        ln_det = digamma((nu[..., None] - np.arange(dim)) / 2).sum(-1) + dim * np.log(2) + np.log(psi).sum(-1)
        ln_pi = digamma(1 + total) - digamma((1 + total).sum(-1, keepdims=True))
        if t < iterations - 1:
            square = (psi[:, None] * (votes - m[:, None]) ** 2).sum(-1)
            ln_p = (ln_pi + ln_det / 2 - dim / kappa / 2)[:, None] - nu[:, None] * square / 2
            r = np.exp(ln_p - ln_p.max(-1, keepdims=True))
            r = r / r.sum(-1, keepdims=True)
    entropy = dim * np.log(2 * np.pi * np.e) / 2 - ln_det / 2
    return m, beta_a - (np.exp(ln_pi) * entropy + beta_u)


@pytest.mark.parametrize("iterations", [1, 3])
def test_variational_bayes_follows_the_equations(iterations: int) -> None:
    u, weight, *rest = problem()
    votes = torch.einsum("bic,icjd->bijd", u, weight).numpy()
    expected = bayes_from_the_equations(votes, *(x.numpy() for x in rest), iterations)
    found = variational_bayes(u, weight, *rest, iterations)
    np.testing.assert_allclose(found.poses, expected[0], rtol=1e-9)
    np.testing.assert_allclose(found.activations, expected[1], rtol=1e-9)


@pytest.mark.parametrize("rows", [None, 2])
def test_gradients_match_finite_differences(rows: int | None) -> None:
    u, weight, a, beta_u, beta_a = (x.requires_grad_() for x in problem(2, 5, 2, 3, 2, rows))
    prior = torch.full((5, 3), 0.1, **F64).requires_grad_()
    gain, shift = (torch.full((2 * (rows or 1),), x, **F64).requires_grad_() for x in (1.1, 0.2))
    checks: tuple[tuple[Callable[..., Any], tuple[Tensor, ...]], ...] = (
        (self_attention, (u, weight, prior)),
        (inverted_attention, (u, weight, gain, shift)),
        (lambda *x: em(*x, inverse_temperature=1.0), (u, weight, a, beta_u, beta_a)),
        (variational_bayes, (u, weight, a, beta_u, beta_a)),
    )
    for function, inputs in checks:
        assert torch.autograd.gradcheck(function, inputs)


def test_em_over_all_windows_has_the_gradients_of_finite_differences() -> None:
    windows = Windows(3, 3, kernel=2)
    _, weight, _, *betas = (x.requires_grad_() for x in problem(1, 4, 2, 3, 2))
    poses = torch.randn(2, 1, 3, 3, 2, **F64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def function(poses: Tensor, weight: Tensor, *betas: Tensor) -> Capsules:
        return em(windows.gather(poses), weight, None, *betas, inverse_temperature=1.0, fold=windows.fold)

    assert torch.autograd.gradcheck(function, (poses, weight, *betas))


def test_one_window_is_normalised_alike_in_both_ways() -> None:
    u, weight, a, *betas = problem(in_caps=9, rows=4)
    fold = Windows(3, 3, kernel=3).fold
    for routing in (em, variational_bayes):
        torch.testing.assert_close(routing(u, weight, a, *betas, fold=fold), routing(u, weight, a, *betas))


def test_fold_adds_up_the_windows_of_a_child() -> None:
    windows = Windows(4, 5, kernel=3)
    z = 500 * torch.randn(2 * 6, 9 * 2, generator=torch.Generator().manual_seed(0), **F64)
    found = windows.fold(z).reshape(2, 2, 3, 3, 3, 2)
    z = z.reshape(found.shape)
    own = torch.stack(
        [z[1, y, x, 2 - y, 2 - x, 1] for y in range(2) for x in range(3)]
    )  # the child at (2, 2)
    torch.testing.assert_close(found[1, 0, 1, 2, 1, 1], own.logsumexp(0))
    torch.testing.assert_close(found[1, 1, 2, 1, 0, 1], own.logsumexp(0))
    torch.testing.assert_close(found[0, 0, 0, 0, 0], z[0, 0, 0, 0, 0])  # a corner is in one window


def test_coordinates_are_added_to_the_votes() -> None:
    u, weight, *_ = problem(rows=4)
    coordinates = torch.rand(11, 2, **F64)
    wider, w = add_coordinates(u, weight, coordinates)
    votes, plain = (torch.einsum("birc,icjd->bijrd", *pair) for pair in ((wider, w), (u, weight)))
    plain[:, :, :, :2, 3] += coordinates[:, None]
    torch.testing.assert_close(votes, plain)


def test_concurrent_routing_updates_all_layers_from_the_iteration_before() -> None:
    steps: list[tuple[int, float, float | None]] = []

    def layer(n: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        def update(children: Tensor, parents: Tensor | None) -> Tensor:
            steps.append((n, float(children), None if parents is None else float(parents)))
            return children + 10 if parents is None else 2 * children + parents

        return update

    values = route_concurrently([layer(0), layer(1)], torch.tensor(1.0), 2)
    assert steps == [(0, 1, None), (1, 11, None), (0, 1, 11), (1, 11, 21)]
    assert [float(x) for x in values] == [13, 43]


@pytest.mark.parametrize("backend", ["cpu", "chunked"])
def test_passes_add_up_their_gradients(backend: str) -> None:
    """Also when a graph is used twice, in part, or for second derivatives."""
    u, weight, *_ = problem(rows=2)
    prior = torch.full((11, 3), 0.1, **F64)
    leaves = [x.requires_grad_() for x in (u, weight, prior)]

    def total(backend: str) -> Tensor:
        return self_attention(*leaves, backend=backend).square().sum()

    with dispatch.disabled():
        expected = torch.autograd.grad(total("reference"), leaves, create_graph=True)
        second = torch.autograd.grad(expected[0].square().sum(), leaves)
    loss = total(backend)
    for wanted in ([2], [0, 1, 2], [1], [0, 1, 2]):
        found = torch.autograd.grad(loss, [leaves[n] for n in wanted], retain_graph=True)
        torch.testing.assert_close(found, tuple(expected[n].detach() for n in wanted))
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(first[0].square().sum(), leaves), second)
    total(backend).backward()
    torch.testing.assert_close(u.grad, expected[0].detach())


def layer_of(name: str, rows: int | None = None, **options: Any) -> CapsuleLayer:
    torch.manual_seed(0)
    routing: Any = InvertedAttention(rows=rows) if rows and name == "inverted-attention" else name
    return CapsuleLayer(11, 4, 3, 4, routing=routing, init_std=0.5, **F64, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [None, 4])
def test_as_a_layer(name: str, rows: int | None) -> None:
    layer = layer_of(name, rows)
    u, _, a, *_ = problem(rows=rows)
    given = (u, a) if getattr(layer.routing, "activates", False) else (u,)
    parents = layer(*given)
    poses = parents.poses if isinstance(parents, Capsules) else parents
    assert poses.shape == (4, 3, *([rows] if rows else []), 4)
    loss = sum(x.square().sum() for x in (parents if isinstance(parents, Capsules) else [parents]))
    loss.backward()
    for what, parameter in layer.named_parameters():
        assert parameter.grad is not None, what
        assert torch.isfinite(parameter.grad).all(), what
    layer.eval()
    trace = layer.trace(u, activations=a) if len(given) == 2 else layer.trace(u)
    torch.testing.assert_close(trace.couplings.sum(-1), torch.ones_like(trace.couplings[..., 0]))
    torch.testing.assert_close(trace.couplings, trace.logits.softmax(-1))
    if name != "variational-bayes":  # its poses pass a batch norm after routing
        after = layer(*given)
        torch.testing.assert_close(trace.outputs[-1], after.poses if isinstance(after, Capsules) else after)
    other = layer_of(name, rows)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "case",
    ["no activation", "equal votes", "one child", "no votes", "one parent"],
    ids=lambda x: x.replace(" ", "-"),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_numbers_stay_finite(name: str, case: str, dtype: torch.dtype) -> None:
    u, weight, a, *_ = (x.to(dtype) for x in problem(out_caps=1 if case == "one parent" else 3))
    if case == "no activation":
        a = torch.zeros_like(a)
    elif case == "equal votes":
        u, weight = u[:, :1].expand_as(u), weight[:1].expand_as(weight)
    elif case == "one child":
        u, weight, a = u[:, :1], weight[:1], a[:, :1]
    elif case == "no votes":
        u = torch.zeros_like(u)
    layer = CapsuleLayer(u.shape[1], 4, weight.shape[2], 4, routing=name, dtype=dtype)
    layer.weight = nn.Parameter(weight.clone())
    u = u.clone().requires_grad_()
    found = layer(u, a.requires_grad_()) if getattr(layer.routing, "activates", False) else layer(u)
    outputs = list(found) if isinstance(found, Capsules) else [found]
    sum(x.sum() for x in outputs).backward()
    for x in (*outputs, u.grad, *(p.grad for p in layer.parameters() if p.grad is not None)):
        assert x is not None
        assert torch.isfinite(x).all()


def test_sixteen_bits_are_routed_in_float32() -> None:
    for name in NAMES:
        layer = layer_of(name).eval()
        u, _, a, *_ = problem()
        given = [u, a] if getattr(layer.routing, "activates", False) else [u]
        exact = layer(*given)
        rounded = layer.to(torch.bfloat16)(*(x.bfloat16() for x in given))
        for x, y in zip(rounded, exact, strict=True):
            assert x.dtype == torch.bfloat16
            torch.testing.assert_close(x.double(), y, rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        (lambda: layer_of("em", bias=True)(problem()[0]), "routing 'em' has no bias on s"),
        (lambda: layer_of("self-attention")(*problem()[::2][:2]), "routing SelfAttention has no activations"),
        (lambda: EM(iterations=0), "em: iterations is 0; it must be a whole number"),
        (lambda: VariationalBayes(iterations=0), "variational-bayes: iterations is 0"),
        (lambda: Windows(4, 4, kernel=5), "windows of 5 × 5 with stride 1 .* fit in the map of 4 × 4"),
        (lambda: layer_of("em")(problem()[0], problem()[2] + 1), r"activations from .* must be in \[0, 1\]"),
        (
            lambda: log_normaliser(torch.zeros(2, 3), torch.zeros(3, 2, 2, 2)),
            r"log_normaliser: u \(2, 3\) must be",
        ),
    ],
)
def test_errors_say_what_and_why(routing: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, CapsnetError), match=message) as error:
        routing()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_that_is_channels_last_in_memory_has_the_same_gradients(name: str) -> None:
    u = problem()[0].float()
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        layer = CapsuleLayer(u.shape[1], u.shape[2], 3, 4, routing=name).eval()
        layer.to(memory_format=layout)
        parents = layer(u)
        (parents.poses if isinstance(parents, Capsules) else parents).square().sum().backward()
        gradients.append(layer.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_batch_has_no_parents(name: str, dtype: torch.dtype) -> None:
    layer = CapsuleLayer(11, 4, 3, 4, routing=name, dtype=dtype).eval()
    u = torch.rand(0, 11, 4, dtype=dtype, requires_grad=True)
    given = (u, u.new_ones(0, 11)) if getattr(layer.routing, "activates", False) else (u,)
    parents = layer(*given)
    poses = parents.poses if isinstance(parents, Capsules) else parents
    assert poses.shape == (0, 3, 4)
    poses.sum().backward()
    assert u.grad is not None
    assert u.grad.shape == u.shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fast", [True, False])
def test_under_autocast_outputs_and_traces_are_float32(
    name: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        monkeypatch.setenv("CAPSNET_FAST", "0")
    layer, u = layer_of(name).float().eval(), problem()[0].float()
    exact, seen = layer(u), layer.trace(u)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, traced = layer(u), layer.trace(u)
    for x, y in zip(rounded, exact, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(traced.logits, seen.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_children_may_differ_in_their_dtype(name: str) -> None:
    layer, u = layer_of(name).eval(), problem()[0].float()
    exact = layer(u.double())
    for x, y in zip(layer(u), exact, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-5)
    assert layer.trace(u).logits.dtype == torch.float64


def test_a_trace_trains_nothing() -> None:
    layer = layer_of("variational-bayes")
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer.trace(problem()[0])
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name]), name
