"""Capsules with variational Bayes routing (De Sousa Ribeiro, Leontidis, Kollias 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from capsnet._support.errors import CapsnetError
from capsnet._support.validation import Size, configuration
from capsnet.functional import shared_cross_entropy
from capsnet.models.authors import Arrays, flat, same
from capsnet.models.config import refuse_multi_label
from capsnet.models.pose_network import PoseNetwork, PoseNetworkConfig
from capsnet.models.registry import register
from capsnet.routing import Routing, VariationalBayes

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch, Dataset


@configuration
class VariationalBayesConfig(PoseNetworkConfig):
    """Configuration of capsules with variational Bayes routing.

    The defaults are the published network with three capsule layers, for images of 32×32; `single` has one.

    Raises:
        CapsnetError: a value is wrong, a kernel is larger than its map, or the network is too large.
    """

    stem_channels: Size = 64
    primary_types: Size = 8
    conv_types: tuple[Size, ...] = (16, 16)

    @classmethod
    def single(cls, **changes: Any) -> Self:
        """Return the published network with one capsule layer: each place has a W of its own."""
        preset: dict[str, Any] = {
            "primary_types": 16,
            "primary_kernel": 3,
            "primary_stride": 2,
            "conv_types": (),
            "conv_strides": (),
            "shared": False,
        }
        return cls(**{**preset, **changes})

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines."""
        refuse_multi_label(dataset, "variational-bayes")
        return super().fields_for(dataset)

    @classmethod
    def training_for(cls, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG003
        """Return the training options that suit this architecture."""
        return {"learning_rate": 0.003}

    def build(self, *, backend: str = "auto") -> VariationalBayesCapsules:
        """Return untrained capsules. Seed PyTorch first."""
        return VariationalBayesCapsules(self, backend=backend)


@register("variational-bayes")
class VariationalBayesCapsules(PoseNetwork):
    """Image → convolution → primary capsules → capsule layers, each routed by variational Bayes → class capsules.

    Args:
        config: sizes; the published network for smallNORB by default.
        backend: routing backend, see `capsnet.routing.agree`.

    Shape:
        images in [0, 1] (batch, channels, height, width) → activations of the classes (batch, classes)
    """

    config_class = VariationalBayesConfig
    config: VariationalBayesConfig

    def __init__(self, config: VariationalBayesConfig | None = None, *, backend: str = "auto") -> None:
        self._backend = backend
        super().__init__(config or VariationalBayesConfig())

    def new_routing(self) -> Routing:
        """Return variational Bayes routing."""
        return VariationalBayes(self.config.routing_iterations, self._backend)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the cross entropy; the authors' code takes the activations, in [0, 1], as logits."""
        if self.training and len(batch.images) < 2:
            raise CapsnetError(
                "variational-bayes has batch norms: give at least 2 images in a training batch"
            )
        return {"loss": shared_cross_entropy(self(batch.images), batch.targets(self.config.num_classes))}

    @classmethod
    def from_authors(
        cls, arrays: Mapping[str, Any], *, image_size: int = 32, routing_iterations: int = 3
    ) -> Self:
        """Build a model from the state of the authors' network, in evaluation mode.

        Sizes are read from the arrays. Strides are those of the authors' code: 2 in the first convolution and in the
        first capsule layer, 1 in the others.

        Args:
            arrays: "Conv_1.weight", "BN_1.weight", … → arrays, as in the authors' checkpoints.
            image_size: height and width of the images.
            routing_iterations: iterations of the routing.

        Raises:
            CapsnetError: an array is missing or has another shape, or the images do not fit the class capsules.
        """
        a = Arrays(arrays)
        names = [name.removesuffix(".W_ij") for name in a.numbered(r"ConvCaps_(\d+)\.W_ij")]
        stem, primary = a.take("Conv_1.weight", 4), a.take("PrimaryCaps.weight", 4)
        matrices = [a.take(f"{name}.W_ij", 10) for name in (*names, "ClassCaps")]
        shared = matrices[-1].shape[-1] == 1
        config = VariationalBayesConfig(
            image_shape=(stem.shape[1], image_size, image_size),
            num_classes=matrices[-1].shape[2],
            stem_channels=stem.shape[0],
            stem_kernel=stem.shape[2],
            primary_types=len(a.take("PrimaryCaps.BN_a.weight", 1)),
            primary_kernel=primary.shape[2],
            primary_stride=1 if names else 2,
            conv_types=tuple(matrix.shape[2] for matrix in matrices[:-1]),
            conv_kernel=matrices[0].shape[-1],
            conv_strides=tuple(2 if number == 0 else 1 for number in range(len(names))),
            pose_side=matrices[0].shape[4],
            shared=shared,
            coordinates="parent",
            routing_iterations=routing_iterations,
        )
        model = cls(config)
        table: dict[str, tuple[str, Callable[[Tensor], Tensor]]]
        table = {"conv.weight": ("Conv_1.weight", same), "primary.conv.weight": ("PrimaryCaps.weight", same)}
        norms = {
            "conv_norm": "BN_1",
            "primary.pose_norm": "PrimaryCaps.BN_p",
            "primary.activation_norm": "PrimaryCaps.BN_a",
        }
        layers = {f"conv_capsules.{number}": name for number, name in enumerate(names)}
        for own, name in {**layers, "class_capsules": "ClassCaps"}.items():
            routing = name.replace("Caps", "Routing")
            table[f"{own}.weight"] = (f"{name}.W_ij", _matrices)
            table |= {f"{own}.routing.{beta}": (f"{routing}.{beta}", flat) for beta in ("beta_u", "beta_a")}
            norms |= {f"{own}.routing.pose_norm": f"{routing}.BN_v"}
            norms |= {f"{own}.routing.activation_norm": f"{routing}.BN_a"}
        for own, name in norms.items():
            parts = ("running_mean", "running_var", *(("weight", "bias") if "routing" not in own else ()))
            table |= {f"{own}.{part}": (f"{name}.{part}", same) for part in parts}
        a.fill(model, table)
        grid, places = config.grids[-1], a.take("ClassRouting.filter").shape[-1]
        if grid != (places, places):
            raise CapsnetError(
                f"from_authors: the class capsules see {places}×{places} places, and images of "
                f"{image_size}×{image_size} give {grid[0]}×{grid[1]}; choose another image_size"
            )
        return model.eval()


def _matrices(weight: Tensor) -> Tensor:
    """Convert (1, I, J, 1, P, P, 1, 1, K, K) to (K·K·I, P, J, P)."""
    inner = weight[0, :, :, 0, :, :, 0, 0]
    return inner.permute(4, 5, 0, 2, 1, 3).flatten(0, 2)
