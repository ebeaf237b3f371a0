"""Find saved models and read their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from capsnet._support.errors import CapsnetError, did_you_mean, shown
from capsnet._support.files import read_json
from capsnet._support.hub import hub_reason
from capsnet._support.validation import parse_config

if TYPE_CHECKING:
    from capsnet.models.config import ClassifierConfig

C = TypeVar("C", bound="ClassifierConfig")

#: Folder of the models that are part of the package.
SHIPPED = Path(__file__).parents[1] / "pretrained"
#: Files of a model that are downloaded.
FILES = ["config.json", "model.safetensors", "confidence.json"]
#: Old names of configuration fields → current names.
RENAMED = {
    "classes": "num_classes",
    "iterations": "routing_iterations",
    "bias": "routing_bias",
    "leaky": "routing_leaky",
    "gradient": "routing_gradient",
}


@dataclass(frozen=True)
class SavedModel:
    """A folder with config.json and model.safetensors, for example a finished run.

    config.json is read once.
    """

    folder: Path
    architecture: str
    """Name of the architecture in `capsnet.models`."""
    values: Mapping[str, Any]
    """The model's configuration as JSON values, not yet checked."""
    training: Mapping[str, Any]
    """The training options; empty if config.json has none."""

    @classmethod
    def open(cls, name: str | Path, **hub: Any) -> Self:
        """Find a saved model and read its config.json.

        Args:
            name: a folder, a shipped model's name ("capsnet-mnist"), or "hf:owner/name" on the Hugging Face Hub; "hf:"
                may be left out.
            hub: for a download, as for `huggingface_hub.snapshot_download`: revision, token, cache_dir,
                local_files_only.

        Raises:
            CapsnetError: the model does not exist, or its config.json does not describe a model.
        """
        folder = find_pretrained(name, **hub)
        found = read_json(folder / "config.json")
        if (
            not isinstance(found, dict)
            or not isinstance(found.get("model"), dict)
            or not isinstance(found.get("architecture"), str)
        ):
            raise CapsnetError(
                f"{folder / 'config.json'} does not describe a capsnet model (it needs architecture and model)"
            )
        training = found.get("training")
        return cls(
            folder,
            found["architecture"],
            current_names(found),
            training if isinstance(training, dict) else {},
        )

    @property
    def path(self) -> Path:
        """Return the path of config.json."""
        return self.folder / "config.json"

    @property
    def weights(self) -> Path:
        """Return the path of model.safetensors."""
        return self.folder / "model.safetensors"

    @property
    def data(self) -> str | None:
        """Return the name of the training data set; None if config.json does not say."""
        name = self.training.get("data")
        return name if isinstance(name, str) else None

    def config(self, kind: type[C]) -> C:
        """Return the model's configuration, checked.

        Raises:
            CapsnetError: an unknown field, or a wrong type or value.
        """
        return parse_config(kind, dict(self.values), self.path)


def current_names(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's part of a config.json, with the current names of fields.

    In older files some fields have other names, and class names and `standardize` are outside the model's part.
    """
    values = dict(description["model"])
    if "num_classes" in values:
        return values
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    if description.get("classes") is not None:
        names = description["classes"]
        values["class_names"] = [str(name) for name in names] if isinstance(names, list) else names
    if description.get("standardize") is True:
        values["standardize"] = True
    return values


def find_pretrained(name: str | Path, **hub: Any) -> Path:
    """Return the folder of a saved model, and download it if needed.

    Args:
        name: a folder, the name of a model in the package, or "owner/name" or "hf:owner/name" on the Hugging Face Hub.
        hub: for a download; see `SavedModel.open`.

    Raises:
        CapsnetError: the model does not exist.
    """
    hub_name = str(name).removeprefix("hf:") if str(name).startswith("hf:") else None
    path = Path(name if hub_name is None else hub_name)
    try:
        if path.is_dir() and hub_name is None:
            return path
    except OSError as error:  # the name is too long
        raise CapsnetError(f"no model at {shown(path)[:100]}…: {error.strerror}") from error
    shipped = SHIPPED / str(name)
    if hub_name is not None and len(path.parts) != 2:
        raise CapsnetError(f"{shown(name)[:100]}: write a model on the hub as hf:owner/name")
    if len(path.parts) == 1 and shipped.is_dir():
        return shipped
    if hub_name is not None or (len(path.parts) == 2 and not path.is_absolute() and not path.parent.exists()):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(path), allow_patterns=FILES, **hub))
        except Exception as error:
            where = "" if hub_name is not None else "is not a folder here and "
            raise CapsnetError(
                f"model {str(path)!r} {where}could not be fetched from the Hugging Face Hub: {hub_reason(error)}"
            ) from error
    if path.is_file():
        raise CapsnetError(f"{shown(path)} is a file; name its folder instead: {shown(path.parent)}")
    known = sorted(folder.name for folder in SHIPPED.glob("*/"))
    raise CapsnetError(
        f"no model at {shown(path)}: there is no such folder; models that come with capsnet: "
        f"{', '.join(known) or 'none'}{did_you_mean(path.name, known)}"
    )
