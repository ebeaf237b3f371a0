"""Compute scores with ONNX Runtime."""

from __future__ import annotations

import ctypes
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsnet._support.errors import CapsnetError, shown

#: Key of what `capsnet export` writes into the file's metadata, as JSON: class_names.
METADATA = "capsnet"


@dataclass(frozen=True)
class OnnxModel:
    """A model that takes images (batch, channels, height, width) in [0, 1] and returns scores (batch, classes)."""

    session: Any
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, threads: int = 1) -> OnnxModel:
        """Load an ONNX file.

        Args:
            path: as `capsnet export` writes it.
            threads: cores for one batch.

        Raises:
            CapsnetError: the file is damaged, or its inputs and outputs are others.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads use no CPU
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            reason = shown(str(error).splitlines()[0])[:200]
            raise CapsnetError(f"{shown(path)}: not an ONNX model that can be loaded ({reason})") from error
        _give_back_memory()
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shape = inputs[0].shape[1:] if len(inputs) == 1 else []
        classes = outputs[0].shape[1] if len(outputs) == 1 and len(outputs[0].shape) == 2 else None
        sizes = [size for size in (*shape, classes) if isinstance(size, int)]
        if (
            len(shape) != 3
            or len(sizes) != 4  # one is a name: it may have any size
            or isinstance(inputs[0].shape[0], int)
            or inputs[0].type != "tensor(float)"
            or classes is None
        ):
            raise CapsnetError(
                f"{shown(path)}: must take float32 images (batch, channels, height, width) of any batch size and "
                "return scores (batch, classes) alone; write it with: capsnet export MODEL FILE.onnx"
            )
        names = _class_names(session.get_modelmeta().custom_metadata_map.get(METADATA), classes)
        channels, height, width = shape
        return cls(session, (channels, height, width), names)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a batch."""
        (found,) = self.session.run(None, {self.session.get_inputs()[0].name: images})
        scores: NDArray[np.float32] = found
        return scores


def _give_back_memory() -> None:
    """Return to the system what the loading has freed: twice the size of the file, which glibc would keep."""
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _class_names(metadata: str | None, classes: int) -> tuple[str, ...]:
    """Return the names in the metadata, or numbers."""
    try:
        names = json.loads(metadata or "")["class_names"]
    except (ValueError, LookupError, TypeError):
        names = None
    if isinstance(names, list) and len(names) == classes:
        return tuple(map(str, names))
    return tuple(map(str, range(classes)))
