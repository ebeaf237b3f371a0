"""Define the API's requests and responses."""

from __future__ import annotations

from capsnet.explorer.schemas.about import (
    Control,
    Examples,
    Geometry,
    ModelInfo,
    Problem,
)
from capsnet.explorer.schemas.base import (
    MAX_ITERATIONS,
    MAX_NUMBERS,
    MAX_POOL,
    PARAMETERS,
    Array,
    Parameter,
    Strict,
)
from capsnet.explorer.schemas.comparisons import (
    AblationResponse,
    AblationRow,
    AgentsResponse,
    PoolResponse,
    SweepResponse,
    TestRow,
    TestsetResponse,
)
from capsnet.explorer.schemas.details import (
    ChildResponse,
    DecodeResponse,
    ImageResponse,
    MapsResponse,
    Meaning,
    MeaningsResponse,
    PixelResponse,
    SheetResponse,
)
from capsnet.explorer.schemas.requests import (
    AgentsRequest,
    CapsuleRequest,
    ChildRequest,
    Layer,
    PixelRequest,
    PoolRequest,
    Scene,
    SweepRequest,
    TraceRequest,
    Transform,
)
from capsnet.explorer.schemas.trace import (
    Cloud,
    TraceResponse,
)

__all__ = [
    "MAX_ITERATIONS",
    "MAX_NUMBERS",
    "MAX_POOL",
    "PARAMETERS",
    "AblationResponse",
    "AblationRow",
    "AgentsRequest",
    "AgentsResponse",
    "Array",
    "CapsuleRequest",
    "ChildRequest",
    "ChildResponse",
    "Cloud",
    "Control",
    "DecodeResponse",
    "Examples",
    "Geometry",
    "ImageResponse",
    "Layer",
    "MapsResponse",
    "Meaning",
    "MeaningsResponse",
    "ModelInfo",
    "Parameter",
    "PixelRequest",
    "PixelResponse",
    "PoolRequest",
    "PoolResponse",
    "Problem",
    "Scene",
    "SheetResponse",
    "Strict",
    "SweepRequest",
    "SweepResponse",
    "TestRow",
    "TestsetResponse",
    "TraceRequest",
    "TraceResponse",
    "Transform",
]
