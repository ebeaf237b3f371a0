"""Put a finished run on the Hugging Face Hub, with a model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.hub import hub_reason
from capsnet._support.version import __version__
from capsnet.data import KINDS, short_name
from capsnet.models.saved import FILES
from capsnet.training.run import Run

#: Files of a run that are put on the hub, if they are there.
PUSHED = (*FILES, "result.json", "metrics.jsonl", "environment.json")


def push(folder: Path, repository: str, *, private: bool = False, token: str | None = None) -> str:
    """Create or update a model on the hub, in one commit: all files arrive, or none.

    Paths of own data are replaced by the last part of their name.

    Args:
        folder: a finished run.
        repository: "owner/name".
        private: make a new repository private.
        token: None: that of `hf auth login` or $HF_TOKEN.

    Returns:
        The address of the model's page.

    Raises:
        CapsnetError: the run is not finished, there is no connection, or the token is refused.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    run = Run.reopen(folder)
    run.finished()
    if repository.count("/") != 1:
        raise CapsnetError(f"{shown(repository)}: write the model's name as owner/name")
    files = {name: _public(folder / name, run) for name in PUSHED if (folder / name).is_file()}
    files["README.md"] = card(run, repository).encode()
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message=f"A run of capsnet {__version__}")
    except Exception as error:  # of the hub's library and of its connections
        raise CapsnetError(
            f"{shown(folder)} is not pushed to {shown(repository)}: {hub_reason(error)}"
        ) from error
    return str(address)


def run_folder(name: str) -> Path:
    """Return a run's folder. A run on the hub, hf:owner/name, is downloaded to runs/hub/owner/name.

    Raises:
        CapsnetError: there is no connection, or no such run.
    """
    if not name.startswith("hf:"):
        return Path(name)
    from huggingface_hub import snapshot_download

    repository = name.removeprefix("hf:")
    if repository.count("/") != 1:
        raise CapsnetError(f"{shown(name)[:100]}: write a run on the hub as hf:owner/name")
    owner, _, short = repository.partition("/")
    target = (
        Path("runs") / "hub" / short_name(owner) / short_name(short)
    )  # never into a run of the user's own
    try:
        return Path(snapshot_download(repository, allow_patterns=list(PUSHED), local_dir=target))
    except Exception as error:
        raise CapsnetError(f"{shown(name)} could not be fetched: {hub_reason(error)}") from error


def card(run: Run, repository: str) -> str:
    """Return the model card: data, protocol, error with interval, limits, how to load."""
    from huggingface_hub import EvalResult, ModelCardData

    result, saved = run.result() or {}, run.saved()
    training = saved.training
    data, provenance = (_without_path(str(result.get(key, "")), run) for key in ("data", "provenance"))
    low, high = result.get("interval_95", (None, None))
    about = ModelCardData(
        library_name="capsnet",
        tags=["capsnet", "capsule-network", "image-classification"],
        pipeline_tag="image-classification",
        model_name=repository.partition("/")[2],
        eval_results=[
            EvalResult(
                "image-classification",
                data or "unknown",
                data or "unknown",
                "error",
                result.get("test_error"),
            )
        ],
    )
    options = {
        name: training[name]
        for name in (
            "batch_size",
            "learning_rate",
            "schedule",
            "shift",
            "rotation",
            "scale",
            "settle",
            "average",
            "hold_out",
            "precision",
        )
        if training.get(name) not in (None, 0, 0.0)
    }
    names = ", ".join(shown(str(name)) for name in result.get("class_names", ())[:50])
    balanced = result.get("balanced_accuracy")
    measured = (
        "The moving average of the weights is measured, after the last step"
        if training.get("average")
        else "The model of the last step is measured"
    )
    return f"""---
{about.to_yaml()}
---

# {repository.partition("/")[2]}

A {saved.architecture} of capsnet {__version__}, {result.get("parameters", 0):,} \
parameters. It classifies images of {_size(saved.values)} as: {names}.

## Error

**{result.get("test_error", float("nan")):.2%}** of {result.get("n", 0):,} test images \
({result.get("errors")} wrong; 95 % interval {low:.2%} to {high:.2%}, Wilson).\
{"" if balanced is None else f" Balanced accuracy: {balanced:.2%}."}
The interval is over other test images of the same kind, for this one training.

## Data

{provenance or "Unknown."}

## Protocol

{result.get("steps", 0):,} steps ({result.get("epochs", 0):.1f} epochs), seed {result.get("seed")}, \
{", ".join(f"{name} {value}" for name, value in options.items())}.
{measured}. The test images trained nothing and chose nothing. config.json has every option,
metrics.jsonl the learning curve, environment.json the versions.

## Limits

It answers every image with one of its classes, also images of something else; `capsnet predict` adds a typicality if
the model has a decoder, which notices some of these images and not all. Images must look like the training images:
size, contrast, light on dark or dark on light. The score is not a calibrated
probability. The error says nothing about data of another origin.

## Load it

    capsnet predict hf:{repository} image.png

```python
import capsnet

model = capsnet.load_model("hf:{repository}")
```
"""


def _size(values: Any) -> str:
    shape = values.get("image_shape", ("?", "?", "?"))
    channels = {1: "grey", 3: "colour"}.get(shape[0], f"{shape[0]} channels")
    return f"{shape[2]}×{shape[1]} pixels, {channels}"


def _public(path: Path, run: Run) -> bytes:
    """Return a file's content, without the path of own data."""
    if path.suffix != ".json":
        return path.read_bytes()
    return _without_path(path.read_text(encoding="utf-8"), run).encode()


def _without_path(text: str, run: Run) -> str:
    kind, colon, rest = str(run.saved().training.get("data", "")).partition(":")
    place = rest.partition("?")[0]
    if not colon or kind not in KINDS or not Path(place).is_absolute():
        return text
    own = short_name(f"{kind}:{place}")
    return text.replace(json.dumps(place)[1:-1], own).replace(place, own)
