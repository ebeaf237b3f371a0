"""The base of all models' configurations, and the upper limit of a model's size."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.validation import MAX_PARAMETERS, ImageShape, configuration

if TYPE_CHECKING:
    from capsnet.data.dataset import Dataset

#: Upper limit of the largest tensor for one image, in numbers: 1 GiB in float32.
MAX_NUMBERS = 2**28


def refuse_multi_label(dataset: Dataset, architecture: str) -> None:
    """Raise CapsnetError if an image may show any number of classes, for networks that choose between classes."""
    if dataset.is_multi_label:
        raise CapsnetError(
            f"{dataset.name}: an image may show any number of classes, and {architecture} chooses between classes; "
            "take capsnet or efficient-capsnet"
        )


@configuration
class ClassifierConfig:
    """Input and classes of a model; the base of every architecture's configuration.

    Raises:
        CapsnetError: the number of names differs from the number of classes, the network is too large, or a value is
            wrong.
    """

    image_shape: ImageShape = (1, 28, 28)
    """(channels, height, width)."""
    num_classes: Annotated[int, Field(ge=2, le=MAX_PARAMETERS)] = 10
    class_names: tuple[str, ...] | None = None
    """Names of the classes, in order; None: their numbers."""
    standardize: bool = False
    """The model first scales each image to mean 0 and standard deviation 1. Its input must still be in [0, 1]."""

    @classmethod
    def for_dataset(cls, dataset: Dataset, **changes: Any) -> Self:
        """Return the configuration for a data set: its image shape, classes, scaling.

        Args:
            dataset: the training data.
            changes: other fields.
        """
        return cls(**{**cls.fields_for(dataset), **changes})

    @classmethod
    def fields_for(cls, dataset: Dataset) -> dict[str, Any]:
        """Return the fields that a data set determines."""
        return {
            "image_shape": tuple(dataset.image_shape),
            "num_classes": len(dataset.class_names),
            "class_names": tuple(dataset.class_names),
            "standardize": dataset.standardize,
        }

    @classmethod
    def training_for(cls, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG003  for subclasses
        """Return the fields of `TrainConfig` that suit the architecture. Options given by the user win."""
        return {}

    def build(self) -> Any:
        """Return an untrained model of this configuration. Seed PyTorch first."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Return the number of trained parameters, without allocating them."""
        return _sizes(self)[0]

    def __post_init__(self) -> None:
        """Raise if the names do not fit the classes, or the network is too large."""
        owner = type(self).__name__
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise CapsnetError(
                f"{owner}: class_names has {len(self.class_names)} names; "
                f"it must have one for each of {self.num_classes} classes"
            )
        parameters, largest = _sizes(self)
        if parameters > MAX_PARAMETERS:
            raise CapsnetError(
                f"{owner}: this network would have {parameters:,} parameters; "
                f"more than {MAX_PARAMETERS:,} is refused"
            )
        if largest > MAX_NUMBERS:
            raise CapsnetError(
                f"{owner}: one image would become a tensor of {largest:,} numbers on its way; "
                f"more than {MAX_NUMBERS:,} is refused"
            )


@cache
def _sizes(config: ClassifierConfig) -> tuple[int, int]:
    """Return the number of parameters and the largest tensor's size for one image.

    Uses meta tensors, which need no memory.
    """
    name = type(config).__name__
    seen = _LargestTensor()  # type: ignore[no-untyped-call]
    with torch.device("meta"):
        try:
            model = config.build().eval()  # batch norm in training needs several images
            with torch.no_grad(), suppress(NotImplementedError), seen:  # an operator without a meta form
                model.scores(torch.empty(1, *config.image_shape))
        except NotImplementedError as error:
            raise CapsnetError(f"{name} has no build(); write one that returns the model") from error
        except RuntimeError as error:  # for example, more bytes than a 64-bit number can count
            raise CapsnetError(f"{name}: this network cannot be built: {_first_line(error)}") from error
    return model.parameter_count(), seen.numbers


def _first_line(error: Exception) -> str:
    return shown(str(error).partition("\n")[0])[:200]


class _LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the size of the largest new tensor."""

    numbers = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not any(part.alias_info for part in function._schema.returns):  # a view takes no memory
            sizes = (leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
            self.numbers = max(self.numbers, *sizes, 0)
        return result
