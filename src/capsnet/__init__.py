"""Capsule networks in PyTorch, after "Dynamic Routing Between Capsules" (Sabour, Frosst, Hinton 2017).

Files and folders, from bottom to top; each imports only from those above it:

    _support/       files, errors, kernels: what knows nothing of capsules
    functional.py   squash and the losses, as in `torch.nn.functional`
    routing/        the heart: reference.py is the paper line by line, the backends are fast
    convolution/    `FastConv2d`, a convolution that picks its own algorithm
    distributed.py  devices, ranks, and work shared by several processes
    data/           data sets → uint8 tensors on the device; augmentation
    layers/         primary capsules, capsule layers, decoder
    models/         CapsNet, other capsule networks, and the controls
    explain/        dimensions, couplings, reconstructions
    inference/      test error, predictions of files, export, serving
    training/       one loop, and what it leaves on disk
    report/         a run → figures and one HTML page
    explorer/       a run → a page that shows every step
    benchmark/      every fast path against the plain one
    experiments/    the paper's experiments, with controls and statistics
    cli/            the commands

>>> import capsnet, torch
>>> model = capsnet.CapsNet(capsnet.CapsNetConfig(image_shape=(1, 28, 28), num_classes=10))
>>> model(torch.rand(4, 1, 28, 28)).shape
torch.Size([4, 10, 16])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from capsnet._support.version import __version__

if TYPE_CHECKING:
    from capsnet import data as data
    from capsnet import models as models
    from capsnet import routing as routing
    from capsnet._support.errors import CapsnetError as CapsnetError
    from capsnet.data import Dataset as Dataset
    from capsnet.data import load_dataset as load_dataset
    from capsnet.functional import margin_loss as margin_loss
    from capsnet.functional import reconstruction_loss as reconstruction_loss
    from capsnet.functional import squash as squash
    from capsnet.inference.evaluation import evaluate as evaluate
    from capsnet.layers import CapsuleLayer as CapsuleLayer
    from capsnet.layers import PrimaryCapsules as PrimaryCapsules
    from capsnet.models import CapsNet as CapsNet
    from capsnet.models import CapsNetConfig as CapsNetConfig
    from capsnet.models import load_model as load_model
    from capsnet.routing import RoutingTrace as RoutingTrace
    from capsnet.routing import route as route
    from capsnet.training.estimator import CapsNetClassifier as CapsNetClassifier
    from capsnet.training.fit import train as train
    from capsnet.training.run import Run as Run

# Names → where they live. Looked up on first use, so that `capsnet --help` need not wait for PyTorch.
_HOMES = {
    "CapsNet": "capsnet.models",
    "CapsNetClassifier": "capsnet.training.estimator",
    "CapsNetConfig": "capsnet.models",
    "CapsnetError": "capsnet._support.errors",
    "CapsuleLayer": "capsnet.layers",
    "Dataset": "capsnet.data",
    "PrimaryCapsules": "capsnet.layers",
    "RoutingTrace": "capsnet.routing",
    "Run": "capsnet.training.run",
    "evaluate": "capsnet.inference.evaluation",
    "load_dataset": "capsnet.data",
    "load_model": "capsnet.models",
    "margin_loss": "capsnet.functional",
    "reconstruction_loss": "capsnet.functional",
    "route": "capsnet.routing",
    "squash": "capsnet.functional",
    "train": "capsnet.training.fit",
}
_ROOMS = ("data", "models", "routing")

__all__ = [*_HOMES, *_ROOMS, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"capsnet.{name}")
    raise AttributeError(f"module 'capsnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
