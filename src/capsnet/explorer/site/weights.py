"""Store the weights of all exported programs in few files, each weight once."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float16", "float32"]
#: The content of each file.
Weights = dict[str, NDArray[np.float32]]
#: Smaller constants stay in the program.
SMALLEST = 256
#: Window of `zlib` that writes gzip.
GZIP = 31


@dataclass
class WeightStore:
    """Collect the weights of several ONNX models; equal ones share their place.

    The models refer to places in float32 arrays, whatever the precision of the stored files.

    Args:
        precision: of the stored numbers; float16 rounds them.
    """

    precision: Precision
    chunks: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    places: dict[bytes, tuple[str, int]] = field(default_factory=dict)

    def move_here(self, proto: Any, file: str = "weights") -> tuple[str, ...]:
        """Replace the large float32 constants of a model by references to this store.

        Args:
            proto: the model.
            file: where to put constants that the store does not have yet.

        Returns:
            The names of all files that the model refers to.
        """
        from onnx import TensorProto, numpy_helper

        used = set()
        for tensor in proto.graph.initializer:
            if tensor.data_type != TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(tensor)
            if values.size < SMALLEST:
                continue
            location, place = self._add(values, file)
            used.add(location)
            entries = {"location": location, "offset": place * 4, "length": values.size * 4}
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                entry = tensor.external_data.add()
                entry.key, entry.value = key, str(value)
        return tuple(sorted(used))

    def _add(self, values: NDArray[np.float32], file: str) -> tuple[str, int]:
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        key = hashlib.sha256(flat.tobytes()).digest()
        if key not in self.places:
            chunks = self.chunks.setdefault(file, [])
            self.places[key] = file, sum(chunk.size for chunk in chunks)
            chunks.append(flat)
        return self.places[key]

    def exact(self) -> Weights:
        """Return all weights before rounding."""
        return {file: np.concatenate(chunks) for file, chunks in self.chunks.items()}

    def values(self) -> Weights:
        """Return all weights as the page will see them."""
        with np.errstate(over="ignore"):  # an infinite weight shows in the measured difference
            return {
                file: exact.astype(self.precision).astype(np.float32) for file, exact in self.exact().items()
            }

    def packed(self) -> dict[str, bytes]:
        """Return the files: gzip of the numbers' first bytes, then of their second bytes, …

        Sorted by place, equal exponents lie side by side: 8 % smaller than the numbers as they are.
        """
        return {file: self._pack(values) for file, values in self.values().items()}

    def _pack(self, values: NDArray[np.float32]) -> bytes:
        numbers = values.astype("<f2" if self.precision == "float16" else "<f4")
        planes = numbers.view(np.uint8).reshape(-1, numbers.itemsize).T
        # "Filtered" data repeat little.
        packer = zlib.compressobj(9, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_FILTERED)
        return packer.compress(np.ascontiguousarray(planes).tobytes()) + packer.flush()
