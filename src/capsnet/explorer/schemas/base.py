"""Define the parts of all messages.

Arrays are sent as little-endian numbers in base64, which is exact and small.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

#: Upper limit on pixels per layer; the size of the served model is checked afterwards.
MAX_NUMBERS = 3 * 128 * 128
MAX_ITERATIONS = 10
#: Largest side of a pooling window.
MAX_POOL = 8

Pixel = Annotated[float, Field(ge=0, le=1)]
ClassNumber = Annotated[int, Field(ge=0, le=9999)]
Iterations = Annotated[int, Field(ge=1, le=MAX_ITERATIONS, description="Routing iterations r.")]
Parameter = Literal["rotation", "shift_x", "shift_y", "scale", "shear"]
PARAMETERS: tuple[Parameter, ...] = get_args(Parameter)


class Strict(BaseModel):
    """Refuse unknown fields, so that misspelt ones are found, and NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Array(BaseModel):
    """Hold an array in C order; `data` is base64 of its little-endian bytes."""

    shape: list[int]
    dtype: Literal["float32", "uint8"] = "float32"
    data: str

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Pack a tensor: uint8 stays uint8, every other type becomes float32."""
        array = tensor.detach().cpu().numpy()
        dtype: Literal["float32", "uint8"] = "uint8" if array.dtype == np.uint8 else "float32"
        packed = np.ascontiguousarray(array.astype("u1" if dtype == "uint8" else "<f4"))
        return cls(shape=list(array.shape), dtype=dtype, data=base64.b64encode(packed.data).decode("ascii"))
