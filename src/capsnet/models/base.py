"""The base class of all models: input, classification, loss, saving and loading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet._support.files import write_json
from capsnet._support.weights import count_weights, load_weights, renamed, save_weights
from capsnet.data.augmentation import standardized
from capsnet.models.config import ClassifierConfig
from capsnet.models.saved import SavedModel

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch


class Classifier(nn.Module, PyTorchModelHubMixin, ABC):
    """Base of CapsNet and of the controls.

    `model(images)` returns class capsules or logits, depending on the architecture. Code for all architectures uses
    `scores`, `predict` and `loss`, and tests for other abilities with `capsnet.models.protocols`.

    A saved model is a folder with `config.json` and `model.safetensors`; a finished run is one too.
    """

    #: Name in config.json and in `capsnet.models.MODELS`.
    architecture: ClassVar[str]
    #: The configuration that describes a model of this architecture completely.
    config_class: ClassVar[type[Any]] = ClassifierConfig
    #: Old prefixes of weights' names → current prefixes.
    renamed_weights: ClassVar[Mapping[str, str]] = {}
    config: Any

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_rename)  # type: ignore[no-untyped-call]

    @abstractmethod
    def scores(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return a score in [0, 1] for each class; the largest is the prediction."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the training loss under the key "loss", and its parts by name."""

    def set_progress(self, share: float) -> None:
        """Receive the share of the training that is done, before each step: for a loss or a routing that changes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes, or their numbers if they have no names."""
        names = self.config.class_names
        if names is None:
            return tuple(str(number) for number in range(self.config.num_classes))
        return tuple(shown(name) for name in names)

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "batch channels height width"], top_k: int = 1
    ) -> Int[Tensor, "batch *top_k"]:
        """Return the `top_k` most likely classes of each image.

        Returns:
            (batch,) for top_k = 1, else (batch, top_k) with the most likely first.

        Raises:
            ValueError: `top_k` is not between 1 and the number of classes; or as `check_images`.
            NotFinite: an image or a score holds NaN or infinity; a score does if a weight does.
        """
        scores = self.scores(images)
        if not 1 <= top_k <= scores.shape[1]:
            raise ValueError(f"predict: top_k is {top_k}; it must be from 1 to {scores.shape[1]}")
        if not torch.compiler.is_compiling():
            # argmax treats NaN as the largest value, and ReLU turns −∞ into 0.
            finite = scores.isfinite().all(dim=1) & images.isfinite().flatten(1).all(dim=1)
            if broken := int((~finite).sum()):
                raise NotFinite(
                    f"predict: {broken} of {len(scores)} images, or their scores, are not finite; look for NaN there"
                )
        return scores.argmax(dim=1) if top_k == 1 else scores.topk(top_k, dim=1).indices

    def prepare(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Check images in [0, 1] and standardise them if the model was trained so.

        Raises:
            ValueError: as `check_images`.
        """
        self.check_images(images)
        if not self.config.standardize:
            return images
        empty = not torch.compiler.is_compiling() and not len(images)  # PyTorch warns of an empty batch
        return images if empty else standardized(images)

    def check_images(self, images: object) -> None:
        """Raise unless this is a batch of images of the model's size and float type.

        Raises:
            ValueError: the message says what the images are, and what they must be.
        """
        expected = tuple(self.config.image_shape)
        if not isinstance(images, Tensor):
            raise ValueError(
                f"images are of type {type(images).__name__}; make them a tensor of floats in [0, 1]"
            )
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; this model takes (batch, {', '.join(map(str, expected))})"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; convert to float in [0, 1]: images.float() / 255")
        # Not from `parameters()`: the copies that nn.DataParallel makes hold their weights as plain attributes.
        weights = (getattr(module, "weight", None) for module in self.modules())
        own = next((weight.dtype for weight in weights if isinstance(weight, Tensor)), images.dtype)
        if images.dtype != own and not torch.is_autocast_enabled(images.device.type):
            raise ValueError(
                f"images are {images.dtype} and the model is {own}; convert them: images.to({own})"
            )

    def parameter_count(self) -> int:
        """Return the number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def describe(self) -> dict[str, Any]:
        """Return the contents of config.json, from which this model can be built again."""
        return {"architecture": self.architecture, "model": asdict(self.config)}

    def _save_pretrained(self, save_directory: Path) -> None:
        write_json(save_directory / "config.json", self.describe())
        save_weights(self.state_dict(), save_directory / "model.safetensors")

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a model in evaluation mode. Only safetensors are read, never pickles.

        Args:
            pretrained_model_name_or_path: a folder (a finished run, or `save_pretrained`), the name of a model
                that comes with this package ("capsnet-mnist"), or "owner/name" on the Hugging Face Hub.
            revision, token, cache_dir, local_files_only: for the Hub, as for
                `huggingface_hub.snapshot_download`.
            device: the model's device.

        Raises:
            CapsnetError: the model does not exist, a file is damaged, or it has another architecture.
        """
        hub = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        saved = SavedModel.open(pretrained_model_name_or_path, **hub)
        if saved.architecture != cls.architecture:
            raise CapsnetError(
                f"{saved.folder} holds a {saved.architecture!r}, not a {cls.architecture!r}; "
                "use capsnet.load_model to load either"
            )
        return cls.from_saved(saved).to(device)

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Build the model of an opened folder and load its weights.

        Raises:
            CapsnetError: the configuration is wrong, a file is damaged, or the weights do not fit.
        """
        config = saved.config(cls.config_class)
        # Checked before the model is allocated, since an untrusted config.json can describe eight gigabytes.
        held, wanted = count_weights(saved.weights), config.parameter_count()
        if held < wanted:
            raise CapsnetError(
                f"{saved.weights} does not fit its config.json: it holds {held:,} of the model's {wanted:,} weights"
            )
        model: Self = config.build()
        load_weights(model, saved.weights, cls.renamed_weights)
        return model.eval()


def _rename(model: nn.Module, tensors: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename weights of older versions; a hook of `load_state_dict`."""
    assert isinstance(model, Classifier)
    for name in list(tensors):
        current = prefix + renamed(name.removeprefix(prefix), model.renamed_weights)
        if name.startswith(prefix) and current != name:
            tensors[current] = tensors.pop(name)
