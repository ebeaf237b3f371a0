"""The primary capsules' two convolutions are the modules they look like, whatever is done to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import capsnet.layers.primary_capsules
from capsnet import PrimaryCapsules
from capsnet.explain import layer_output
from capsnet.functional import squash
from capsnet.models import CapsNet, CapsNetConfig

IMAGES = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def make(scale: float = 1.0) -> PrimaryCapsules:
    torch.manual_seed(0)
    return PrimaryCapsules(1, 6, 2, 4, stem_kernel=5, kernel=5, scale=scale)


def one_by_one(model: PrimaryCapsules, images: Tensor = IMAGES) -> Tensor:
    """The definition: the convolutions' own calls, without what watches them."""
    hidden = F.relu(model.conv1.forward(images))
    return squash(model.group(model.conv2.forward(hidden * model.scale)))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that both convolutions were one function."""
    calls: list[int] = []
    features = capsnet.layers.primary_capsules.features

    def counted(*args: Tensor, **options: int) -> Tensor:
        calls.append(1)
        return features(*args, **options)

    monkeypatch.setattr(capsnet.layers.primary_capsules, "features", counted)
    return calls


def test_as_built_they_are_one_function(fused: list[int]) -> None:
    model = make()
    torch.testing.assert_close(model(IMAGES), one_by_one(model))
    hook = model.conv2.register_forward_hook(lambda *_: None)
    model(IMAGES)
    hook.remove()
    prune.random_unstructured(model.conv1, "weight", 0.5)
    prune.remove(model.conv1, "weight")
    model(IMAGES)
    assert len(fused) == 2, "with and without a hook"


@pytest.mark.parametrize("scale", [1 / 32, 0.3, 0.0, -2.0])
def test_scale_multiplies_the_second_convolutions_weights(scale: float) -> None:
    def gradients(maps: Tensor) -> list[Tensor]:
        return [maps, *torch.autograd.grad(maps.square().sum(), list(model.parameters()))]

    model = make(scale)
    hidden = F.relu(F.conv2d(IMAGES, model.conv1.weight, model.conv1.bias))
    maps = F.conv2d(hidden, model.conv2.weight * scale, model.conv2.bias, stride=2)
    expected = gradients(squash(model.group(maps)))
    torch.testing.assert_close(gradients(model(IMAGES)), expected)
    model.conv1.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(gradients(model(IMAGES)), expected)


HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], object]] = {
    "forward": lambda layer, hook: layer.register_forward_hook(hook),
    "forward pre": lambda layer, hook: layer.register_forward_pre_hook(hook),
    "full backward": lambda layer, hook: layer.register_full_backward_hook(hook),
    "full backward pre": lambda layer, hook: layer.register_full_backward_pre_hook(hook),
}


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_are_called(kind: str, layer: str, fused: list[int]) -> None:
    model, seen = make(), []
    HOOKS[kind](getattr(model, layer), lambda module, *_: seen.append(module))
    images = IMAGES.clone().requires_grad_()  # else there is nothing for a full backward hook to pass on
    model(images).sum().backward()
    assert seen == [getattr(model, layer)]
    assert not fused


def test_hooks_on_all_modules_are_called() -> None:
    model, seen = make(), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        model(IMAGES)
    finally:
        handle.remove()
    assert seen == [model.conv1, model.conv2, model]


def test_a_forward_that_was_replaced_is_called() -> None:
    class Double(ModelHook):
        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return output * 2

    model = make()
    add_hook_to_module(model.conv2, Double())
    torch.testing.assert_close(model(IMAGES), one_by_one(model))


def test_the_scores_pass_through_both_convolutions() -> None:
    config = CapsNetConfig(image_shape=(1, 20, 20), num_classes=3, stem_channels=4, primary_types=2)
    model = CapsNet(config).eval()
    images, labels = torch.rand(2, 1, 20, 20), torch.tensor([0, 1])
    maps = layer_output(model, model.primary.conv2)(images, labels).unflatten(1, (16, 2, 2))
    torch.testing.assert_close(squash(model.primary.group(maps)), model.primary(images))


def weight_doubled(layer: nn.Module) -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2

    parametrize.register_parametrization(layer, "weight", Double())


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.weight_norm,
        weight_doubled,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_weights_that_are_computed_train(layer: str, change: Callable[[nn.Module], object]) -> None:
    model = make()
    change(getattr(model, layer))
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(IMAGES).norm(dim=-1).sum().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    model.eval()  # spectral norm changes its estimate at each call in training
    capsules = model(IMAGES)
    torch.testing.assert_close(capsules, one_by_one(model))


@pytest.mark.parametrize(
    ("layer", "replacement"),
    [
        ("conv1", nn.Conv2d(1, 6, 5, padding=2)),
        ("conv1", nn.Conv2d(1, 6, 5, padding="same", padding_mode="circular")),
        ("conv1", nn.Conv2d(1, 6, 5, dilation=2)),
        ("conv1", nn.Conv2d(1, 6, 5, stride=(1, 2))),
        ("conv1", nn.Conv2d(1, 6, 5, bias=False)),
        ("conv1", nn.Sequential(nn.Conv2d(1, 6, 5), nn.InstanceNorm2d(6))),
        ("conv2", nn.Conv2d(6, 8, 5, 2, padding=1)),
        ("conv2", nn.Conv2d(6, 8, 5, (2, 1))),
        ("conv2", nn.Conv2d(6, 8, 5, 2, groups=2)),
        ("conv2", nn.Conv2d(6, 8, 5, 2, bias=False)),
        ("conv2", nn.Sequential(nn.Conv2d(6, 8, 5, 2), nn.InstanceNorm2d(8))),
    ],
)
def test_layers_that_were_replaced_are_called(layer: str, replacement: nn.Module) -> None:
    model = make()
    setattr(model, layer, replacement)
    torch.testing.assert_close(model(IMAGES), one_by_one(model))


@pytest.mark.parametrize("scale", [1.0, 1 / 32])
def test_compiles_into_one_graph_and_exports(scale: float) -> None:
    model = make(scale).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGES), one_by_one(model))
    exported = torch.export.export(model, (IMAGES,)).module()
    torch.testing.assert_close(exported(IMAGES), one_by_one(model))
