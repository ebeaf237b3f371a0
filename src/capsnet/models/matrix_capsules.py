"""Matrix capsules with EM routing (Hinton, Sabour, Frosst 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import configuration
from capsnet.functional import spread_loss
from capsnet.models.pose_network import PoseNetwork, PoseNetworkConfig
from capsnet.models.registry import register
from capsnet.routing import EM, Routing

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch, Dataset

Share = Annotated[float, Field(ge=0, le=1)]


@configuration
class MatrixCapsulesConfig(PoseNetworkConfig):
    """Configuration of matrix capsules and their loss.

    The defaults are the published network for smallNORB, A = B = C = D = 32, for images of 32×32; `small` is the
    published one with A = 64, B = 8, C = D = 16. The paper has no batch norm (norm=False); with it, training starts
    sooner.

    Raises:
        CapsnetError: a value is wrong, a kernel is larger than its map, or the network is too large.
    """

    inverse_temperature: Annotated[float, Field(gt=0, le=1000)] = 0.01
    """λ at the end of training; in iteration t it is this times 1 − 0.95^t. The paper gives no numbers."""
    first_warmth: Share = 0.1
    """λ at the start of training, as a share of λ at the end. It rises linearly."""
    warm_after: Share = 0.2
    """Share of the training after which λ stays."""
    first_margin: Share = 0.2
    """m of the spread loss at the start of training. It rises linearly."""
    last_margin: Share = 0.9
    """m at the end of training."""

    def __post_init__(self) -> None:
        if self.first_margin > self.last_margin:
            raise CapsnetError(
                f"MatrixCapsulesConfig: first_margin is {self.first_margin}; it must be at most last_margin, "
                f"{self.last_margin}"
            )
        super().__post_init__()

    @classmethod
    def small(cls, **changes: Any) -> Self:
        """Return the published network with 68,000 parameters."""
        preset = {"stem_channels": 64, "primary_types": 8, "conv_types": (16, 16)}
        return cls(**{**preset, **changes})

    @classmethod
    def training_for(cls, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG003
        """Return the training options that suit this architecture."""
        return {"learning_rate": 0.003, "batch_size": 64}

    def build(self, *, backend: str = "auto") -> MatrixCapsules:
        """Return untrained matrix capsules. Seed PyTorch first."""
        return MatrixCapsules(self, backend=backend)


@register("matrix-capsules")
class MatrixCapsules(PoseNetwork):
    """Matrix capsules: image → convolution (A) → primary (B) → convolutional capsules (C, D) → class capsules (E).

    Args:
        config: sizes and schedules; the published network for smallNORB by default.
        backend: routing backend, see `capsnet.routing.agree`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → activations of the classes (batch, classes)

    >>> model = MatrixCapsules(MatrixCapsulesConfig(image_shape=(2, 32, 32), num_classes=5))
    >>> model(torch.rand(1, 2, 32, 32)).shape
    torch.Size([1, 5])
    """

    config_class = MatrixCapsulesConfig
    config: MatrixCapsulesConfig
    margin: Tensor

    def __init__(self, config: MatrixCapsulesConfig | None = None, *, backend: str = "auto") -> None:
        self._backend = backend
        config = config or MatrixCapsulesConfig()
        super().__init__(config)
        # A buffer, since a captured CUDA graph reads it from the device in every step.
        self.register_buffer("margin", torch.tensor(config.last_margin), persistent=False)

    def new_routing(self) -> Routing:
        """Return EM routing."""
        return EM(self.config.routing_iterations, self.config.inverse_temperature, self._backend)

    def set_progress(self, share: float) -> None:
        """Set the margin and λ for this share of the training."""
        config = self.config
        self.margin.fill_(config.first_margin + (config.last_margin - config.first_margin) * share)
        risen = min(1.0, share / config.warm_after) if config.warm_after else 1.0
        for module in self.modules():
            if isinstance(module, EM):
                module.warmth.fill_(config.first_warmth + (1 - config.first_warmth) * risen)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the spread loss, with the margin of the training's progress."""
        return {"loss": spread_loss(self(batch.images), batch.targets(self.config.num_classes), self.margin)}
