"""Count parameters, multiply-adds and memory of any model with the same code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from capsnet._support import dispatch
from capsnet._support.errors import CapsnetError
from capsnet.data.dataset import Batch
from capsnet.models.base import Classifier
from capsnet.models.config import ClassifierConfig
from capsnet.routing.dynamic import DynamicRouting


@dataclass(frozen=True)
class Cost:
    """Size and arithmetic of a model."""

    parameters: int
    """All trained parameters, including the decoder's."""
    multiply_adds: int
    """To classify one image with the plain paths: convolutions, matrix products and routing. The decoder is not
    needed for that."""


@dataclass(frozen=True)
class Part:
    """Size and arithmetic of one module of a model."""

    name: str
    """Path of the module in the model, such as "primary.conv1"; "other" for what is in no module."""
    output: tuple[int, ...]
    """Shape of its output for one image; empty if it is not one tensor."""
    parameters: int
    multiply_adds: int
    """For one training image, forward, by the plain paths."""


@dataclass(frozen=True)
class Memory:
    """Bytes that training on one batch needs in float32, from the tensors' shapes."""

    parameters: int
    gradients: int
    adam: int
    """Adam's two moments of each parameter."""
    activations: int
    """What the forward pass keeps for the backward pass, the batch's images included."""

    @property
    def total(self) -> int:
        """Sum of the four."""
        return self.parameters + self.gradients + self.adam + self.activations


def cost_of(model: Classifier) -> Cost:
    """Count a model's cost by classifying one black image.

    >>> from capsnet.models import CapsNet
    >>> cost_of(CapsNet())
    Cost(parameters=8215568, multiply_adds=201793536)
    """
    image = torch.zeros(1, *model.config.image_shape, device=next(model.parameters()).device)
    counter = FlopCounterMode(display=False)
    with dispatch.disabled(), counter:
        model.predict(image)
    return Cost(model.parameter_count(), counter.get_total_flops() // 2)


def multiply_adds_to_classify(config: ClassifierConfig) -> int:
    """Return the multiply-adds of `cost_of` without memory for the model.

    Raises:
        CapsnetError: the model uses an operator that cannot work without memory.
    """
    model = _without_memory(config).eval()
    counter = FlopCounterMode(display=False)
    with _shapes_only(config), torch.no_grad(), dispatch.disabled(), counter:
        model.scores(_batch(config, 1).images)
    return counter.get_total_flops() // 2


def parts_of(config: ClassifierConfig) -> list[Part]:
    """Return parameters and multiply-adds of each part of a model.

    Counted on the loss of one image without memory for the tensors, so that a decoder counts too.

    Raises:
        CapsnetError: the model uses an operator that cannot work without memory.
    """
    model = _without_memory(config)
    counter = FlopCounterMode(display=False)
    modules = dict(_leaves(model))
    flops = dict.fromkeys(modules, 0)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(modules, ())

    def watch(name: str, module: nn.Module) -> None:
        def before(*_: object) -> None:
            flops[name] -= counter.get_total_flops()

        def after(_module: object, _inputs: object, output: object) -> None:
            flops[name] += counter.get_total_flops()
            shapes[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    for name, module in modules.items():
        watch(name, module)
    with _shapes_only(config), torch.no_grad(), dispatch.disabled(), counter:
        model.loss(_batch(config, 1))
    parts = [
        Part(name, shapes[name], _count(module), flops[name] // 2)
        for name, module in modules.items()
        if _count(module) or flops[name]
    ]
    other = Part(
        "other",
        (),
        model.parameter_count() - sum(part.parameters for part in parts),
        (counter.get_total_flops() - sum(flops.values())) // 2,
    )
    return [*parts, other] if other.parameters or other.multiply_adds else parts


def training_memory(config: ClassifierConfig, batch_size: int, *, stored_votes: bool = False) -> Memory:
    """Return the memory of one training step, from the shapes of the tensors.

    Space that an operation needs only while it runs is not counted, nor are copies for other layouts.

    Args:
        config: the model's.
        batch_size: examples in the batch.
        stored_votes: with plain routing, which keeps all votes for the backward pass, instead of this package's.

    Raises:
        CapsnetError: the model uses an operator that cannot work without memory.
    """
    model = _without_memory(config).train()
    for routed in _routed(model):
        # "chunked" keeps what every fast backend keeps, and works on tensors without memory.
        backend = "reference" if stored_votes else "chunked"
        if isinstance(routed.routing, DynamicRouting):
            routed.routing = replace(routed.routing, backend=backend)
        else:
            routed.routing.backend = backend
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with _shapes_only(config), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss(_batch(config, batch_size))["loss"]
    del loss  # its graph holds what was kept until here
    size = sum(parameter.nbytes for parameter in model.parameters())
    return Memory(size, size, 2 * size, sum(storage.nbytes() for storage in kept.values()))


def has_votes(config: ClassifierConfig) -> bool:
    """Return whether a model has a routing whose plain form stores the votes."""
    return bool(_routed(_without_memory(config)))


def _routed(model: Classifier) -> list[Any]:
    """Return the layers whose routing has a backend."""
    layers = (module for module in model.modules() if hasattr(module, "routing"))
    return [layer for layer in layers if hasattr(layer.routing, "backend")]


def _without_memory(config: ClassifierConfig) -> Classifier:
    with torch.device("meta"):
        model: Classifier = config.build().eval()  # batch norm in training needs several images
    return model


@contextmanager
def _shapes_only(config: ClassifierConfig) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # NotImplementedError is one
        raise CapsnetError(
            f"{type(config).__name__}: the cost of this model cannot be computed from shapes alone: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _batch(config: ClassifierConfig, count: int) -> Batch:
    images = torch.empty(count, *config.image_shape, device="meta")
    return Batch(images, torch.zeros(count, 1, dtype=torch.long, device="meta"), images[:, None])


def _leaves(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a model by name.

    A module is divided if all its parameters are in several children.
    """
    for name, child in module.named_children():
        inner = [grandchild for grandchild in child.children() if _count(grandchild)]
        own = any(True for _ in child.parameters(recurse=False))
        is_list = isinstance(child, nn.ModuleList | nn.ModuleDict)  # never called itself
        if is_list or (len(inner) > 1 and not own and not isinstance(child, nn.Sequential)):
            yield from _leaves(child, f"{path}{name}.")
        else:
            yield f"{path}{name}", child


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
