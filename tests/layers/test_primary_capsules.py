"""The primary capsules' two convolutions are the modules they look like, whatever is done to them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from capsnet import PrimaryCapsules
from capsnet._support import dispatch
from capsnet.convolution import activation, choice
from capsnet.convolution.im2col import Im2col
from capsnet.convolution.winograd import Winograd
from capsnet.explain import layer_output
from capsnet.functional import squash
from capsnet.models import CapsNet, CapsNetConfig
from closeness import assert_same

LAYERS = ["conv1", "conv2"]
IMAGES = torch.rand(16, 1, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images take the same paths as large ones."""
    monkeypatch.setattr(activation, "LARGE", 0)
    monkeypatch.setattr(choice, "LARGE", 0)


def make(scale: float = 1.0) -> PrimaryCapsules:
    torch.manual_seed(0)
    return PrimaryCapsules(1, 64, 8, 8, stem_kernel=5, scale=scale)


def plain(model: PrimaryCapsules, images: Tensor = IMAGES) -> Tensor:
    """The same modules with PyTorch's own convolutions."""
    with dispatch.disabled():
        return model(images)


def defined(model: PrimaryCapsules) -> Tensor:
    """The definition."""
    hidden = F.relu(F.conv2d(IMAGES, model.conv1.weight, model.conv1.bias))
    return squash(model.group(F.conv2d(hidden, model.conv2.weight, model.conv2.bias, stride=2)))


@pytest.mark.quick
def test_both_convolutions_are_fast_and_equal_the_definition() -> None:
    model = make()
    assert isinstance(choice.choose(IMAGES.shape, model.conv1.weight.shape, (1, 1), train=True), Im2col)
    assert isinstance(choice.choose((16, 64, 20, 20), model.conv2.weight.shape, (2, 2), train=True), Winograd)
    found = model(IMAGES)
    torch.testing.assert_close(found, defined(model))
    assert not torch.equal(found, plain(model))


@pytest.mark.parametrize("scale", [1 / 32, 0.3, 0.0, -2.0])
def test_scale_multiplies_the_second_convolutions_weights(scale: float) -> None:
    model = make(scale)
    exact = copy.deepcopy(model).double()
    hidden = F.relu(F.conv2d(IMAGES.double(), exact.conv1.weight, exact.conv1.bias))
    maps = F.conv2d(hidden, exact.conv2.weight * scale, exact.conv2.bias, stride=2)
    results = []
    for capsules, each in ((model(IMAGES), model), (squash(exact.group(maps)), exact)):
        results.append([capsules, *torch.autograd.grad(capsules.square().sum(), list(each.parameters()))])
    assert_same(*results)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_a_forward_hook_returns_replaces_the_output(layer: str) -> None:
    model, before, seen = make(), make(), []

    def double(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append(output.clone())
        return output * 2

    handle = getattr(model, layer).register_forward_hook(double)
    found = model(IMAGES)
    torch.testing.assert_close(found, plain(model))
    assert not torch.allclose(found, before(IMAGES), rtol=0.1)
    kept = F.conv2d(IMAGES, model.conv1.weight, model.conv1.bias) if layer == "conv1" else None
    if kept is not None:
        torch.testing.assert_close(seen[0], kept)
    handle.remove()
    assert torch.equal(model(IMAGES), before(IMAGES))


def test_what_a_forward_hook_keeps_is_not_changed_afterwards() -> None:
    """The output of Conv1 before the ReLU."""
    model, seen = make(), []
    model.conv1.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        model(IMAGES)
    assert (seen[0] < 0).any()


HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], object]] = {
    "forward": lambda layer, hook: layer.register_forward_hook(hook),
    "forward pre": lambda layer, hook: layer.register_forward_pre_hook(hook),
    "full backward": lambda layer, hook: layer.register_full_backward_hook(hook),
    "full backward pre": lambda layer, hook: layer.register_full_backward_pre_hook(hook),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_called(kind: str, layer: str) -> None:
    model, seen = make(), []
    HOOKS[kind](getattr(model, layer), lambda module, *_: seen.append(module))
    images = IMAGES.clone().requires_grad_()  # else there is nothing for a full backward hook to pass on
    model(images).sum().backward()
    assert seen == [getattr(model, layer)]


def test_hooks_on_all_modules_are_called() -> None:
    model, seen = make(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        model(IMAGES)
    finally:
        handle.remove()
    assert seen == [model.conv1, model.conv2, model]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_forward_that_was_replaced_is_called(layer: str) -> None:
    class Double(ModelHook):
        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return output * 2

    model, before = make(), make()
    add_hook_to_module(getattr(model, layer), Double())
    getattr(before, layer).register_forward_hook(lambda _, __, output: output * 2)
    assert torch.equal(model(IMAGES), before(IMAGES))


def test_the_scores_pass_through_both_convolutions() -> None:
    config = CapsNetConfig(image_shape=(1, 20, 20), num_classes=3, stem_channels=4, primary_types=2)
    model = CapsNet(config).eval()
    images, labels = torch.rand(2, 1, 20, 20), torch.tensor([0, 1])
    found = layer_output(model, model.primary.conv2)(images, labels).unflatten(1, (16, 2, 2))
    torch.testing.assert_close(squash(model.primary.group(found)), model.primary(images))


def weight_doubled(layer: nn.Module) -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    parametrize.register_parametrization(layer, "weight", Double())


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm by hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "weight norm by hook": nn.utils.weight_norm,
    "weight doubled": weight_doubled,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layer", LAYERS)
def test_weights_that_are_computed_take_effect_and_train(layer: str, change: str) -> None:
    model = make().eval()  # spectral norm changes its estimate at each call in training
    with torch.no_grad():
        unchanged = model(IMAGES)
        CHANGES[change](getattr(model, layer))
        found = model(IMAGES)
    torch.testing.assert_close(found, defined(model))
    assert torch.allclose(found, unchanged, atol=1e-5) == change.startswith("weight norm")
    model.train()
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(IMAGES).norm(dim=-1).sum().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval()
    torch.testing.assert_close(model(IMAGES), defined(model))


def test_a_parametrization_is_computed_once_a_call() -> None:
    """Spectral norm makes a step of its power iteration each time that its weight is read in training."""
    model, twin = make(), make()
    for each in (model, twin):
        torch.manual_seed(0)
        parametrizations.spectral_norm(each.conv2)
    model(IMAGES), plain(twin)
    assert torch.equal(*(each.conv2.parametrizations.weight[0]._u for each in (model, twin)))


@pytest.mark.parametrize(
    ("layer", "replacement"),
    [
        ("conv1", nn.Conv2d(1, 64, 5, padding=2)),
        ("conv1", nn.Conv2d(1, 64, 5, padding="same", padding_mode="circular")),
        ("conv1", nn.Conv2d(1, 64, 5, dilation=2)),
        ("conv1", nn.Conv2d(1, 64, 5, stride=(1, 2))),
        ("conv1", nn.Conv2d(1, 64, 5, bias=False)),
        ("conv1", nn.Sequential(nn.Conv2d(1, 64, 5), nn.InstanceNorm2d(64))),
        ("conv2", nn.Conv2d(64, 64, 9, 2, padding=1)),
        ("conv2", nn.Conv2d(64, 64, 9, (2, 1))),
        ("conv2", nn.Conv2d(64, 64, 9, 2, groups=2)),
        ("conv2", nn.Conv2d(64, 64, 9, 2, bias=False)),
        ("conv2", nn.Sequential(nn.Conv2d(64, 64, 9, 2), nn.InstanceNorm2d(64))),
    ],
)
def test_layers_that_were_replaced_are_called(layer: str, replacement: nn.Module) -> None:
    model, before = make(), make()
    setattr(model, layer, replacement)
    hidden = F.relu((replacement if layer == "conv1" else before.conv1)(IMAGES))
    expected = squash(model.group((replacement if layer == "conv2" else before.conv2)(hidden)))
    found = model(IMAGES)
    torch.testing.assert_close(found, expected)
    assert found.shape != before(IMAGES).shape or not torch.allclose(found, before(IMAGES), rtol=0.1)


def test_a_fast_convolution_has_the_parameters_of_pytorchs() -> None:
    model = make()
    assert list(model.state_dict()) == ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]
    other = make()
    other.conv1, other.conv2 = nn.Conv2d(1, 64, 5), nn.Conv2d(64, 64, 9, 2)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(IMAGES), model(IMAGES))


@pytest.mark.parametrize("scale", [1.0, 1 / 32])
def test_compiles_into_one_graph_and_exports(scale: float) -> None:
    model = make(scale).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGES), plain(model))
    exported = torch.export.export(model, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), plain(model))
