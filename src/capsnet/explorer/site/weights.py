"""Store the weights of all exported programs in one file, each once."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float16", "float32"]
#: The name under which the exported programs know the file.
LOCATION = "weights"
#: Smaller constants stay in the program.
SMALLEST = 256


@dataclass
class WeightStore:
    """Collect the weights of several ONNX models; equal ones share their place.

    The models refer to places in the float32 array, whatever the precision of the stored file.

    Args:
        precision: of the stored numbers; float16 rounds them.
    """

    precision: Precision
    chunks: list[NDArray[np.float32]] = field(default_factory=list)
    count: int = 0
    places: dict[bytes, int] = field(default_factory=dict)

    def move_here(self, proto: Any) -> None:
        """Replace the large float32 constants of a model by references to this store."""
        from onnx import TensorProto, numpy_helper

        for tensor in proto.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(tensor)
            if values.size < SMALLEST:
                continue
            entries = {"location": LOCATION, "offset": self._add(values) * 4, "length": values.size * 4}
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)

    def _add(self, values: NDArray[np.float32]) -> int:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        key = hashlib.sha256(flat.tobytes()).digest()
        if key not in self.places:
            self.places[key] = self.count
            self.chunks.append(flat)
            self.count += flat.size
        return self.places[key]

    def exact(self) -> NDArray[np.float32]:
        """Return all weights before rounding."""
        return np.concatenate(self.chunks or [np.zeros(0, np.float32)])

    def values(self) -> NDArray[np.float32]:
        """Return all weights as the page will see them."""
        with np.errstate(over="ignore"):  # an infinite weight shows in the measured difference
            return self.exact().astype(self.precision).astype(np.float32)

    def packed(self) -> bytes:
        """Return the file: gzip of the numbers' first bytes, then of their second bytes, …

        Sorted by place, equal exponents lie side by side: 7 % smaller than the numbers as they are.
        """
        numbers = self.values().astype("<f2" if self.precision == "float16" else "<f4")
        planes = numbers.view(np.uint8).reshape(-1, numbers.itemsize).T
        return gzip.compress(np.ascontiguousarray(planes).tobytes(), mtime=0)
