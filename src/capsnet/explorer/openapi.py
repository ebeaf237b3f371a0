"""Add the served model's sizes to the OpenAPI description."""

from __future__ import annotations

from math import prod
from typing import Any

from fastapi import FastAPI

from capsnet.explorer.schemas import Geometry


def describe_sizes(app: FastAPI, geometry: Geometry) -> None:
    """Put this model's limits into `/openapi.json`."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = plain()
            for model, fields in sizes(geometry).items():
                properties = description["components"]["schemas"][model]["properties"]
                for name, limits in fields.items():
                    _limit(properties[name], limits)
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def sizes(geometry: Geometry) -> dict[str, dict[str, dict[str, int]]]:
    """Return the limits of the request fields, by schema and field."""
    pixels = prod(geometry.image_shape)
    last_class = {"maximum": geometry.classes - 1}
    found: dict[str, dict[str, dict[str, int]]] = {
        "Layer": {"pixels": {"minItems": pixels, "maxItems": pixels}},
        "TraceRequest": {"focus": last_class},
        "SweepRequest": {"focus": last_class},
        "ChildRequest": {"child": {"maximum": geometry.in_caps - 1}, "parent": last_class},
        "CapsuleRequest": {
            "number": last_class,
            "pose": {"minItems": geometry.class_dim, "maxItems": geometry.class_dim},
        },
    }
    if geometry.stem_channels:
        channel = {"maximum": geometry.stem_channels - 1}
        rows, columns = (side - 1 for side in geometry.maps)
        found["PixelRequest"] = {"channel": channel, "row": {"maximum": rows}, "column": {"maximum": columns}}
        found["PoolRequest"] = {"channel": channel}
    return found


def _limit(schema: dict[str, Any], limits: dict[str, int]) -> None:
    """Set limits on a field's schema, also inside a nullable one."""
    for option in schema.get("anyOf", [schema]):
        if option.get("type") != "null":
            option.update(limits)
