"""Training steps of the other architectures, and what they are compared with: the same in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from capsnet._support import dispatch
from capsnet.data.dataset import Batch
from capsnet.functional import margin_loss
from capsnet.models.efficient_capsnet import EfficientCapsNet
from capsnet.models.matrix_capsules import MatrixCapsules, MatrixCapsulesConfig


class PlainEfficientCapsNet(nn.Module):
    """The published network for MNIST: grouped convolution, all votes in memory, one einsum for each equation.

    Args:
        model: the weights are copied from it.
    """

    def __init__(self, model: EfficientCapsNet) -> None:
        super().__init__()
        channels = (1, 32, 64, 64, 128)
        kernels, strides = (5, 3, 3, 3), (1, 1, 1, 2)
        self.convolutions = nn.ModuleList(map(nn.Conv2d, channels, channels[1:], kernels, strides))
        self.norms = nn.ModuleList(nn.BatchNorm2d(count, eps=1e-3) for count in channels[1:])
        self.depthwise = nn.Conv2d(128, 128, 9, groups=128)
        self.weight = nn.Parameter(torch.empty(16, 8, 10, 16))
        self.prior = nn.Parameter(torch.empty(16, 10))
        primary, capsules = model.primary, model.class_capsules
        self.convolutions.load_state_dict(primary.convolutions.state_dict())
        self.norms.load_state_dict(primary.norms.state_dict())
        with torch.no_grad():
            self.depthwise.weight.copy_(primary.weight[:, None])
            assert self.depthwise.bias is not None
            self.depthwise.bias.copy_(primary.bias)
            self.weight.copy_(capsules.weight)
            self.prior.copy_(capsules.get_parameter("routing.prior"))

    def forward(self, x: Float[Tensor, "batch 1 28 28"]) -> Float[Tensor, "batch 10 16"]:
        """Return the class capsules v."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(F.relu(convolution(x)))
        u = _squash(self.depthwise(x).view(-1, 16, 8))
        votes = torch.einsum("bic,icjd->bijd", u, self.weight)
        logits = torch.einsum("bijd,bjd->bij", votes, votes.sum(1)) / 4
        couplings = logits.softmax(dim=2) + self.prior
        v: Tensor = _squash(torch.einsum("bij,bijd->bjd", couplings, votes))
        return v


def _squash(s: Float[Tensor, "*n dim"]) -> Float[Tensor, "*n dim"]:
    length = s.norm(dim=-1, keepdim=True)
    v: Tensor = (1 - torch.exp(-length)) * s / (length + 1e-20)
    return v


def training_step(
    model: nn.Module, loss: Callable[[], Tensor], plain: bool
) -> Callable[[], tuple[Tensor, ...]]:
    """Return a training step with Adam that returns its loss; plain: every fast path off, Adam not fused."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=None if plain else True)

    def run() -> tuple[Tensor, ...]:
        with dispatch.disabled() if plain else nullcontext():
            optimizer.zero_grad(set_to_none=True)
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return (value.detach(),)

    return run


def build_efficient_step(device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build a training step of Efficient-CapsNet for MNIST at batch 128, in float32."""
    torch.manual_seed(0)
    images = torch.rand(128, 1, 28, 28).to(device)
    model = EfficientCapsNet().to(device)
    network = PlainEfficientCapsNet(model).to(device) if plain else model
    labels = torch.arange(128, device=device)[:, None] % 10
    targets = Batch(images, labels, images[:, None]).targets(10)
    return training_step(network, lambda: margin_loss(network(images).norm(dim=-1), targets), plain)


def build_matrix_step(batch: int, device: torch.device, plain: bool) -> Callable[[], tuple[Tensor, ...]]:
    """Build a training step of matrix capsules for smallNORB, A = B = C = D = 32.

    The plain side stores all votes and routes by einsum and autograd: the reference backend.
    """
    torch.manual_seed(0)
    config = MatrixCapsulesConfig(image_shape=(2, 32, 32), num_classes=5)
    model = MatrixCapsules(config, backend="reference" if plain else "auto").to(device)
    images = torch.rand(batch, 2, 32, 32).to(device)
    examples = Batch(images, torch.arange(batch, device=device)[:, None] % 5, images[:, None])
    return training_step(model, lambda: model.loss(examples)["loss"], plain)
