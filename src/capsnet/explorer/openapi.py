"""Add the served model's sizes to the OpenAPI description."""

from __future__ import annotations

from math import prod
from typing import Any

from fastapi import FastAPI

from capsnet.models import CapsNetConfig


def describe_sizes(app: FastAPI, config: CapsNetConfig) -> None:
    """Put this model's limits into `/openapi.json`."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = plain()
            for model, fields in sizes(config).items():
                properties = description["components"]["schemas"][model]["properties"]
                for name, limits in fields.items():
                    _limit(properties[name], limits)
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def sizes(config: CapsNetConfig) -> dict[str, dict[str, dict[str, int]]]:
    """Return the limits of the request fields, by schema and field."""
    _, height, width = config.image_shape
    pixels = prod(config.image_shape)
    rows, columns = ((side - config.stem_kernel) // config.stem_stride for side in (height, width))
    last_class = {"maximum": config.num_classes - 1}
    channel = {"maximum": config.stem_channels - 1}
    return {
        "Layer": {"pixels": {"minItems": pixels, "maxItems": pixels}},
        "TraceRequest": {"focus": last_class},
        "SweepRequest": {"focus": last_class},
        "ChildRequest": {"child": {"maximum": config.in_caps - 1}, "parent": last_class},
        "PixelRequest": {"channel": channel, "row": {"maximum": rows}, "column": {"maximum": columns}},
        "PoolRequest": {"channel": channel},
        "CapsuleRequest": {
            "number": last_class,
            "pose": {"minItems": config.class_dim, "maxItems": config.class_dim},
        },
    }


def _limit(schema: dict[str, Any], limits: dict[str, int]) -> None:
    """Set limits on a field's schema, also inside a nullable one."""
    for option in schema.get("anyOf", [schema]):
        if option.get("type") != "null":
            option.update(limits)
