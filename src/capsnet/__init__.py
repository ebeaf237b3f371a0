"""Capsule networks in PyTorch, after "Dynamic Routing Between Capsules" (Sabour, Frosst, Hinton 2017).

The map, in the order in which data flows:

    data/          data sets → uint8 tensors on the device
    augment.py     shifts, crops, affine maps on batches
    stem/          the two convolutions, in the form that is fastest where they run
    primary.py     image → primary capsules
    routing/       the heart: reference.py is the paper line by line, the other backends are fast
    capsules.py    capsule layers
    decoder.py     class capsules → image
    losses.py      margin, reconstruction
    models/        CapsNet and the controls
    training.py    one loop; runs.py, what it leaves on disk
    evaluation.py  test error with its interval
    explain/       dimensions, couplings, reconstructions
    report.py      a run → figures and one HTML page
    cli/           the commands

>>> import capsnet, torch
>>> model = capsnet.CapsNet(capsnet.CapsNetConfig(image_shape=(1, 28, 28), classes=10))
>>> model(torch.rand(4, 1, 28, 28)).shape
torch.Size([4, 10, 16])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from capsnet import data as data
    from capsnet.capsules import CapsuleLayer as CapsuleLayer
    from capsnet.errors import CapsnetError as CapsnetError
    from capsnet.losses import margin_loss as margin_loss
    from capsnet.losses import reconstruction_loss as reconstruction_loss
    from capsnet.models import CapsNet as CapsNet
    from capsnet.models import CapsNetConfig as CapsNetConfig
    from capsnet.models import load_model as load_model
    from capsnet.nonlinearity import squash as squash
    from capsnet.primary import PrimaryCapsules as PrimaryCapsules
    from capsnet.routing import RoutingTrace as RoutingTrace
    from capsnet.routing import route as route

# Names → where they live. Looked up on first use, so that `capsnet --help` need not wait for PyTorch.
_HOMES = {
    "CapsNet": "capsnet.models",
    "CapsNetConfig": "capsnet.models",
    "CapsnetError": "capsnet.errors",
    "CapsuleLayer": "capsnet.capsules",
    "PrimaryCapsules": "capsnet.primary",
    "RoutingTrace": "capsnet.routing",
    "load_model": "capsnet.models",
    "margin_loss": "capsnet.losses",
    "reconstruction_loss": "capsnet.losses",
    "route": "capsnet.routing",
    "squash": "capsnet.nonlinearity",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in {"data", "routing", "models"}:
        return import_module(f"capsnet.{name}")
    raise AttributeError(f"module 'capsnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
