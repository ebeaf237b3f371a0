"""Export a trained model to ONNX or to PyTorch's `torch.export`."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capsnet._support.errors import CapsnetError
from capsnet._support.files import refuse_place, write_bytes
from capsnet.models.base import Classifier

#: Largest allowed difference between the exported model's scores and PyTorch's.
TOLERANCE = 1e-4


#: Images of the check, in batches of several sizes.
CHECKED = 1000
#: Key of the file's metadata; `capsnet.inference.serving` reads the class names there.
METADATA = "capsnet"


class Scores(nn.Module):
    """The scores of a classifier as a module."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """Return the scores."""
        return self.model.scores(images)


def export_onnx(model: Classifier, path: Path) -> float:
    """Write a model as ONNX, if ONNX Runtime gives the same scores.

    The exported model takes float images (batch, channels, height, width) in [0, 1] and returns scores
    (batch, num_classes), for any batch size. The routing is exported as the plain reference, since ONNX has no
    operators for the fast backends.

    Args:
        model: is moved to the CPU and put into evaluation mode.
        path: the file to write; its folder must exist.

    Returns:
        The largest difference between ONNX Runtime's scores and PyTorch's on 1,000 random images.

    Raises:
        CapsnetError: ONNX is not installed, the scores differ, or the file cannot be written.
    """
    check_installed()
    import onnx
    import onnxruntime

    refuse_place(path)

    scores = Scores(model).cpu().eval()
    content = io.BytesIO()
    onnx.save_model(scores_to_onnx(scores), content)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (found,) = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(found)

    difference = _difference(run, scores)
    if not difference <= TOLERANCE:
        raise CapsnetError(
            f"ONNX Runtime's scores differ from PyTorch's by {difference:.1e}; {path} is not written"
        )
    write_bytes(path, content.getvalue())
    return difference


def export_program(model: Classifier, path: Path) -> float:
    """Write a model as a `torch.export` program (.pt2), if it gives the same scores when it is loaded again.

    `torch.export.load(path).module()` takes the images and returns the scores that an exported ONNX model does.

    Args:
        model: is moved to the CPU and put into evaluation mode.
        path: the file to write; its folder must exist.

    Returns:
        The largest difference between the loaded program's scores and the model's on 1,000 random images.

    Raises:
        CapsnetError: the scores differ, or the file cannot be written.
    """
    refuse_place(path)
    scores = Scores(model).cpu().eval()
    # 2 in the example, since an example of 1 would fix the size; the smallest is 1
    sizes = {"images": {0: torch.export.Dim("batch", min=1)}}
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own warnings; the numbers are checked
        example = torch.rand(2, *model.config.image_shape)
        torch.export.save(torch.export.export(scores, (example,), dynamic_shapes=sizes), content)
        content.seek(0)
        loaded = torch.export.load(content).module()
    difference = _difference(loaded, scores)
    if not difference <= TOLERANCE:
        raise CapsnetError(f"the loaded program's scores differ by {difference:.1e}; {path} is not written")
    write_bytes(path, content.getvalue())
    return difference


def scores_to_onnx(scores: Scores) -> Any:
    """Return the ONNX model of a classifier's scores, with its class names as metadata."""
    import onnx

    images = torch.rand(3, *scores.model.config.image_shape, generator=torch.Generator().manual_seed(0))
    batch = {"images": {0: ("batch", 1, None)}}
    proto = to_onnx(scores, {"images": images}, ["scores"], batch, optimize=True)
    onnx.helper.set_model_props(
        proto, {METADATA: json.dumps({"class_names": list(scores.model.class_names)})}
    )
    return proto


def _difference(run: Callable[[Tensor], Tensor], scores: Scores) -> float:
    """Return the largest difference of the scores on random images."""
    shape = scores.model.config.image_shape
    images = torch.rand(CHECKED, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = [
            (run(batch) - scores(batch)).abs().max()
            for batch in torch.split(images, [1, 3, 96] + [100] * ((CHECKED - 100) // 100))
        ]
    return float(torch.stack(found).max())  # NaN if a score is


def check_installed() -> None:
    """Raise CapsnetError if a package that the export needs is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ImportError as error:
        raise CapsnetError(f"export needs {error.name}: pip install 'capsnet[export]'") from error


def to_onnx(
    module: nn.Module,
    inputs: dict[str, Tensor],
    output_names: list[str],
    sizes: Mapping[str, Mapping[int, tuple[str, int, int | None]]],
    *,
    optimize: bool = False,
) -> Any:
    """Export a module to an ONNX model.

    Args:
        module: on the CPU, in evaluation mode.
        inputs: an example of each argument.
        output_names: names of what it returns.
        sizes: the axes of an input that may have another size: name, smallest and largest size.
        optimize: fold constants. The exporter's optimiser breaks some models with several variable axes.

    Returns:
        An `onnx.ModelProto`.
    """
    axes: dict[str, Any] = {}
    for name in inputs:
        for axis, (label, low, high) in sizes.get(name, {}).items():
            axes.setdefault(name, {})[axis] = torch.export.Dim(label, min=low, max=high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own warnings; the numbers are checked
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=output_names,
            dynamic_shapes={name: axes.get(name) for name in inputs},
            dynamo=True,
            verbose=False,
            optimize=optimize,
        )
    assert program is not None
    return program.model_proto
