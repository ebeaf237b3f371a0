"""The interfaces of models for reports, the explorer, `compare` and experiments.

A model implements those that fit it. Test with `isinstance(model, HasPoses)`; code outside `models/` never tests for a
model's class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeGuard, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from capsnet.layers import CapsuleLayer, PrimaryCapsules
    from capsnet.models.capsnet import CapsNetTrace
    from capsnet.routing import RoutingTrace

Images = Float[Tensor, "batch channels height width"]
Poses = Float[Tensor, "batch num_classes dim"]


@runtime_checkable
class HasPoses(Protocol):
    """Each class has a pose: a vector whose length is the class's score."""

    config: Any

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """Return the weights."""
        ...

    def class_poses(self, images: Images) -> Poses:
        """Return the class capsules v of a batch."""
        ...


@runtime_checkable
class Decodes(HasPoses, Protocol):
    """Poses can be decoded to images, if there is a decoder; see `decodes`."""

    decoder: Any

    def decode(self, capsules: Poses, labels: Int[Tensor, " batch"] | int | None = None) -> Images:
        """Reconstruct images from one class capsule each."""
        ...


@runtime_checkable
class Traceable(Decodes, Protocol):
    """Every step from image to class capsules can be shown: primary capsules, votes, …"""

    architecture: ClassVar[str]
    primary: PrimaryCapsules
    class_capsules: CapsuleLayer

    def scores(self, images: Images) -> Float[Tensor, "batch num_classes"]:
        """Return the lengths of the class capsules."""
        ...

    def prepare(self, images: Images) -> Images:
        """Check images in [0, 1] and standardise them if the model was trained so."""
        ...

    def parameter_count(self) -> int:
        """Return the number of trained numbers."""
        ...

    def trace(self, images: Images, iterations: int | None = None) -> CapsNetTrace:
        """Run the network and return all intermediate results."""
        ...


@runtime_checkable
class Routed(Protocol):
    """The routing to the class capsules can be shown: votes, couplings, and lengths or activations."""

    architecture: ClassVar[str]
    class_capsules: Any
    config: Any

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        ...

    def scores(self, images: Images) -> Float[Tensor, "batch num_classes"]:
        """Return a score in [0, 1] for each class."""
        ...

    def parameter_count(self) -> int:
        """Return the number of trained numbers."""
        ...

    def class_routing(self, images: Images, iterations: int | None = None) -> RoutingTrace:
        """Return the routing to the class capsules, iteration by iteration."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A network without capsules.

    In comparisons, the input of its last linear layer takes the place of poses.
    """

    architecture: ClassVar[str]

    def scores(self, images: Images) -> Float[Tensor, "batch num_classes"]:
        """Return a score in [0, 1] for each class."""
        ...

    def parameter_count(self) -> int:
        """Return the number of trained numbers."""
        ...

    def features(self, images: Images) -> Float[Tensor, "batch features"]:
        """Return the input of the last linear layer."""
        ...

    def feature_maps(self, images: Images) -> list[Tensor]:
        """Return each stage's output, (batch, channels, rows, columns)."""
        ...


def decodes(model: object) -> TypeGuard[Decodes]:
    """Return whether a model has a trained decoder."""
    return isinstance(model, Decodes) and model.decoder is not None
