"""What every model here can do: classify images, name its loss, be saved and loaded."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError, NotFinite, did_you_mean, shown
from capsnet._support.files import read_json, write_json
from capsnet._support.limits import check_sizes
from capsnet._support.weights import count_weights, load_weights, save_weights

if TYPE_CHECKING:
    from capsnet.data.dataset import Batch

C = TypeVar("C")

#: Models that come with the package, by the name that `from_pretrained` takes.
SHIPPED = Path(__file__).parent.parent / "pretrained"


class Classifier(nn.Module, PyTorchModelHubMixin, ABC):
    """Base of CapsNet and of the controls.

    A saved model is a folder with `config.json` and `model.safetensors`; a finished run is one too.
    """

    #: Name in config.json and in `capsnet.models.ARCHITECTURES`.
    architecture: ClassVar[str]
    #: The dataclass that describes a model of this architecture completely.
    config_class: ClassVar[type[Any]]
    config: Any

    @abstractmethod
    def scores(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """How strongly each class is there, in [0, 1]; the largest is the answer."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The training objective under the key "loss", and its parts under their own names."""

    @torch.no_grad()
    def predict(
        self, images: Float[Tensor, "batch channels height width"], count: int = 1
    ) -> Int[Tensor, "batch *count"]:
        """The `count` most likely classes of each image.

        Returns:
            (batch,) for count = 1, else (batch, count) with the most likely first.

        Raises:
            ValueError: `count` is no number of classes; or as `check_images`.
            NotFinite: a number of an image is NaN or infinite, or a score, because a weight is.
        """
        scores = self.scores(images)
        if not 1 <= count <= scores.shape[1]:
            raise ValueError(f"predict: {count} of {scores.shape[1]} classes")
        if not torch.compiler.is_compiling():
            # argmax would call NaN the largest, and answer with its class; ReLU makes 0 of −∞.
            finite = scores.isfinite().all(dim=1) & images.isfinite().flatten(1).all(dim=1)
            if broken := int((~finite).sum()):
                raise NotFinite(
                    f"predict: {broken} of {len(scores)} images, or their scores, are not finite; look for NaN there"
                )
        return scores.argmax(dim=1) if count == 1 else scores.topk(count, dim=1).indices

    def check_images(self, images: object) -> None:
        """Refuse what is no batch of images of this model's size and floating type.

        Raises:
            ValueError: what they are, and what they should be.
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
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def describe(self) -> dict[str, Any]:
        """What config.json holds: enough to build this model again."""
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
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a model: from a folder (a finished run, or `save_pretrained`), by the name of a model that
        comes with this package ("capsnet-mnist"), or from the Hugging Face Hub ("owner/name").

        Only safetensors are read, never pickles. The model is returned in evaluation mode.

        Raises:
            CapsnetError: no such model, a broken file, or a model of another architecture.
        """
        folder = find_pretrained(pretrained_model_name_or_path, revision)
        config = read_model_config(folder)
        if config["architecture"] != cls.architecture:
            raise CapsnetError(
                f"{folder} holds a {config['architecture']!r}, not a {cls.architecture!r}; "
                "use capsnet.models.load_model to load either"
            )
        return cls.from_description(config, folder).to(device)

    @classmethod
    def from_description(cls, config: dict[str, Any], folder: Path) -> Self:
        """Build the model of an already read config.json and fill in the folder's weights."""
        settings = parse_config(cls.config_class, config["model"], folder / "config.json")
        weights = folder / "model.safetensors"
        # Before memory for the model is asked for: a config.json can promise eight gigabytes.
        held, wanted = count_weights(weights), settings.parameter_count()
        if held < wanted:
            raise CapsnetError(
                f"{weights} does not fit its config.json: it holds {held:,} of the model's {wanted:,} weights"
            )
        model = cls(settings)
        load_weights(model, weights)
        return model.eval()


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model: a path, a shipped model's name, or a download from the Hub."""
    path = Path(name)
    try:
        if path.is_dir():
            return path
    except OSError as error:  # the name is longer than names may be
        raise CapsnetError(f"no model at {shown(path)[:100]}…: {error.strerror}") from error
    shipped = SHIPPED / str(name)
    if len(path.parts) == 1 and shipped.is_dir():
        return shipped
    if len(path.parts) == 2 and not path.is_absolute() and not path.parent.exists():
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    str(name), revision=revision, allow_patterns=["config.json", "model.safetensors"]
                )
            )
        except Exception as error:
            raise CapsnetError(
                f"model {str(name)!r} is no folder here and could not be had from the Hugging Face Hub "
                f"({type(error).__name__}); check the name and the network"
            ) from error
    if path.is_file():
        raise CapsnetError(f"{shown(path)} is a file; name the folder that it lies in: {shown(path.parent)}")
    known = sorted(folder.name for folder in SHIPPED.glob("*/"))
    raise CapsnetError(
        f"no model at {shown(path)}: it is no folder; models that come with capsnet: {', '.join(known) or 'none'}"
        f"{did_you_mean(path.name, known)}"
    )


def read_model_config(folder: Path) -> dict[str, Any]:
    """The part of config.json that describes the model, checked for form."""
    config = read_json(folder / "config.json")
    if (
        not isinstance(config, dict)
        or not isinstance(config.get("model"), dict)
        or not isinstance(config.get("architecture"), str)
    ):
        raise CapsnetError(
            f"{folder / 'config.json'} does not describe a capsnet model (it needs architecture and model)"
        )
    return config


def parse_config(config_class: type[C], values: dict[str, Any], where: Path) -> C:
    """Build a configuration dataclass from untrusted values: unknown names and wrong types are refused.

    Raises:
        CapsnetError: naming the file, the field and what is wrong with it.
    """
    from pydantic import ValidationError

    # Before anything is built of it: each of a hundred thousand layers would be checked, for seconds.
    check_sizes(
        f"{where}: {config_class.__name__}",
        {},
        {shown(name)[:100]: len(value) for name, value in values.items() if isinstance(value, list)},
    )
    try:
        adapter = _adapter(config_class)  # type: ignore[arg-type]  # a class is hashable
        config: C = adapter.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:100] or "model"
        raise CapsnetError(f"{where}: {shown(field)}: {shown(first['msg'])}") from error
    return config


@cache
def _adapter(config_class: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(config_class)
