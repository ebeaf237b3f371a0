"""Routings against numbers from their authors' own code or weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor
from torch.nn import functional as F

from capsnet.routing import (
    Capsules,
    Windows,
    add_coordinates,
    attend,
    inverted_attention,
    route_concurrently,
    self_attention,
    variational_bayes,
)
from oracles import arrays, assert_close

SELF_ATTENTION = ("self_attention_weights.npz", "self_attention_smallnorb.npz.xz")


def matrices(x: Tensor, weight: Tensor, matrix: bool) -> tuple[Tensor, Tensor]:
    """From the authors' axes to ours; their matrix weights are (…, P, P, J)."""
    if not matrix:
        return x, weight
    side = weight.shape[-2]
    return x.unflatten(-1, (side, side)), weight.transpose(-1, -2)


def mixed_windows(x: Tensor, kernel: int, stride: int) -> tuple[Tensor, tuple[int, int]]:
    """The windows as the authors' code has them: stacked on the last axis, then viewed as if they were not."""
    views = x.unfold(2, kernel, stride).unfold(3, kernel, stride)  # (B, I, H′, W′, C, K, K)
    batch, types, high, wide, dim = views.shape[:5]
    stacked = views.permute(0, 1, 5, 6, 4, 2, 3).contiguous()
    mixed = stacked.view(batch, types, kernel, kernel, high, wide, dim)
    return mixed.permute(0, 4, 5, 2, 3, 1, 6).reshape(batch * high * wide, -1, dim), (high, wide)


def layer(weight: Tensor, gain: Tensor, shift: Tensor, matrix: bool, stride: int) -> Callable[..., Tensor]:
    """One of the authors' layers, fully connected or convolutional, as a function (children, parents) → parents."""
    convolutional = weight.ndim == 6

    def update(children: Tensor, parents: Tensor | None) -> Tensor:
        size: tuple[int, ...] = ()
        if convolutional:
            x, size = mixed_windows(children, weight.shape[0], stride)
        else:
            x = children.reshape(len(children), -1, children.shape[-1])
        x, w = matrices(x, weight.flatten(0, 2) if convolutional else weight, matrix)
        if parents is not None:
            if convolutional:
                parents = parents.permute(0, 2, 3, 1, 4).flatten(0, 2)
            parents = parents.unflatten(-1, (w.shape[-1], -1)) if matrix else parents
        v = attend(x, w, parents, gain, shift).reshape(len(x), w.shape[2], -1)
        return v.unflatten(0, (-1, *size)).permute(0, 3, 1, 2, 4) if convolutional else v

    return update


@pytest.mark.parametrize("name", ["fcv", "fcm", "convv", "convm"])
def test_inverted_attention_has_the_authors_layers(name: str) -> None:
    a = arrays("inverted_attention.npz")
    weight, gain, shift = a[f"{name}.weight"], a[f"{name}.ln.weight"], a[f"{name}.ln.bias"]
    x, expected = a[f"{name}.input"], [a[f"{name}.out{n}"] for n in (1, 2, 3)]
    if not name.startswith("conv"):
        u, w = matrices(x, weight, name == "fcm")
        for n in (1, 2, 3):
            assert_close(inverted_attention(u, w, gain, shift, n).flatten(2), expected[n - 1])
        return
    stride = stride_of(x.shape[2], weight.shape[0], expected[0].shape[2])
    update, parents = layer(weight, gain, shift, name == "convm", stride), None
    for n in range(3):
        parents = update(x, parents)
        assert_close(parents, expected[n])


def stride_of(size: int, kernel: int, out: int) -> int:
    """The stride that leads from one map to the other; sizes are read from the arrays."""
    return next(stride for stride in range(1, size + 1) if (size - kernel) // stride + 1 == out)


def authors_network(state: dict[str, Tensor], images: Tensor, iterations: int, concurrent: bool) -> Tensor:
    x = F.conv2d(images, state["pre_caps.pre_caps.0.weight"], state["pre_caps.pre_caps.0.bias"], 2, 1).relu()
    x = F.conv2d(x, state["pc_layer.weight"]).permute(0, 2, 3, 1)
    gain, shift = state["nonlinear_act.weight"], state["nonlinear_act.bias"]
    x = F.layer_norm(x.unflatten(-1, (-1, len(gain))).permute(0, 3, 1, 2, 4), gain.shape, gain, shift)
    layers = []
    while (key := f"capsule_layers.{len(layers)}") + ".w" in state:
        norm = (state[f"{key}.nonlinear_act.{kind}"] for kind in ("weight", "bias"))
        layers.append(layer(state[f"{key}.w"], *norm, True, 2))
    if concurrent:
        x = route_concurrently(layers, x, iterations)[-1]
    else:
        for update in layers:
            parents = None
            for _ in range(iterations):
                parents = update(x, parents)
            x = parents
    return F.linear(x, state["final_fc.weight"], state["final_fc.bias"]).squeeze(-1)


@pytest.mark.parametrize("kind", ["sequential", "concurrent"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_inverted_attention_has_the_authors_network(kind: str, iterations: int) -> None:
    a = arrays("inverted_attention.npz")
    state = {name.removeprefix("model.state."): x for name, x in a.items() if name.startswith("model.state.")}
    found = authors_network(state, a["model.input"], iterations, kind == "concurrent")
    assert_close(found, a[f"model.{kind}.r{iterations}"])


def test_inverted_attention_has_the_authors_gradients() -> None:
    a = arrays("inverted_attention.npz")
    state = {name.removeprefix("model.state."): x for name, x in a.items() if name.startswith("model.state.")}
    state = {name: x.requires_grad_() for name, x in state.items()}
    authors_network(state, a["model.input"], 2, True).square().sum().backward()
    for name, x in state.items():
        assert x.grad is not None
        assert_close(x.grad, a[f"model.grad.{name}"])


def normalised(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Batch norm in evaluation mode, over the second axis; with a gain and a shift where there are any."""
    return F.batch_norm(
        x.flatten(2) if x.ndim > 2 else x,
        state[f"{name}.running_mean"],
        state[f"{name}.running_var"],
        state.get(f"{name}.weight"),
        state.get(f"{name}.bias"),
    ).view_as(x)


def authors_bayes(state: dict[str, Tensor], images: Tensor) -> dict[str, Capsules]:
    """Every stage's poses (batch, types, P, P, height, width) and activations (batch, types, height, width)."""
    x = normalised(F.conv2d(images, state["Conv_1.weight"], None, 2), state, "BN_1").relu()
    x = F.conv2d(x, state["PrimaryCaps.weight"])
    types = len(state["PrimaryCaps.BN_a.running_mean"])
    side = state["ConvCaps_1.W_ij"].shape[4]
    poses, activations = x.split([types * side * side, types], dim=1)
    poses = normalised(poses.reshape(len(x), types, side, side, *x.shape[2:]), state, "PrimaryCaps.BN_p")
    stages = {"PrimaryCaps": Capsules(poses, normalised(activations, state, "PrimaryCaps.BN_a").sigmoid())}
    layers = [name.removesuffix(".W_ij") for name in state if name.endswith(".W_ij")]
    for name in layers:
        stage = name.replace("Caps", "Routing")
        last = list(stages.values())[-1]
        stages[stage] = authors_layer(state, name, stage, last, 2 if name == "ConvCaps_1" else 1)
    return stages


def authors_layer(state: dict[str, Tensor], name: str, stage: str, given: Capsules, stride: int) -> Capsules:
    poses, activations = given
    weight = state[f"{name}.W_ij"][
        0, :, :, 0, :, :, 0, 0
    ]  # (I, J, P, P, K, K), or K = 1: shared by all positions
    shared = weight.shape[-1] == 1
    kernel = poses.shape[-1] if shared else weight.shape[-1]
    windows = Windows(*poses.shape[-2:], kernel, stride)
    w = weight.permute(4, 5, 0, 2, 3, 1).transpose(-1, -2).expand(kernel, kernel, *(-1,) * 4).flatten(0, 2)
    u = windows.gather(poses.permute(0, 1, 4, 5, 2, 3))
    if shared:
        # That code takes the parent's coordinate, (n + 1) / 10 N of N positions, where the paper has the child's.
        u, w = add_coordinates(u, w, u.new_full((len(w), 2), 0.1))
    a = windows.gather(activations)
    betas = (state[f"{stage}.{kind}"].flatten() for kind in ("beta_u", "beta_a"))
    m, scores = variational_bayes(u, w, a, *betas, 3, fold=windows.fold)
    m = normalised(m, state, f"{stage}.BN_v")
    scores = normalised(scores, state, f"{stage}.BN_a").sigmoid()
    if shared:
        return Capsules(m, scores)
    return Capsules(windows.spread(m).permute(0, 1, 4, 5, 2, 3), windows.spread(scores))


def test_variational_bayes_has_the_authors_stages() -> None:
    a = arrays("variational_bayes.npz")
    state = {name.removeprefix("state."): x for name, x in a.items() if name.startswith("state.")}
    for name, stage in authors_bayes(state, a["input"]).items():
        assert_close(stage.activations, a[f"step.{name}.activations"])
        assert_close(stage.poses, a[f"step.{name}.poses"])


def test_variational_bayes_has_the_authors_gradients() -> None:
    a = arrays("variational_bayes.npz")
    state = {name.removeprefix("state."): x for name, x in a.items() if name.startswith("state.")}
    names = [name.removeprefix("grad.") for name in a if name.startswith("grad.")]
    for name in names:
        state[name].requires_grad_()
    list(authors_bayes(state, a["input"]).values())[-1].activations.square().sum().backward()
    for name in names:
        assert state[name].grad is not None
        assert_close(state[name].grad, a[f"grad.{name}"])


def test_self_attention_has_the_authors_class_capsules() -> None:
    a, seen = (arrays(name) for name in SELF_ATTENTION)
    weight = a["CapsNet.digit_caps.W"].permute(1, 2, 0, 3)
    prior = a["CapsNet.digit_caps.b"][..., 0].T
    found = self_attention(seen["primary"], weight, prior)
    assert_close(found, seen["capsules"][: len(found)])
