"""Generate the page's TypeScript types: `python -m capsnet.explorer.typescript`.

It writes static/wire.ts from the schemas. `tsc --checkJs` checks the page against it, and a test checks that
it is up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from capsnet.explorer import schemas

TARGET = Path(__file__).parent / "static" / "wire.ts"
_SIMPLE = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}


def declarations() -> str:
    """Return TypeScript interfaces of all schemas."""
    models = [
        value
        for value in map(vars(schemas).get, schemas.__all__)
        if isinstance(value, type) and issubclass(value, BaseModel)
    ]
    _, schema = models_json_schema([(model, "serialization") for model in models])
    lines = ["// Written by `python -m capsnet.explorer.typescript` from schemas/."]
    for name, definition in schema["$defs"].items():
        lines.append(f"\nexport interface {'Packed' if name == 'Array' else name} {{")
        optional = issubclass(
            getattr(schemas, name), schemas.Strict
        )  # requests may omit fields with a default
        required = definition.get("required", [])
        for field, value in definition.get("properties", {}).items():
            mark = "?" if optional and field not in required and "default" in value else ""
            lines.append(f"  {field}{mark}: {_type(value)};")
        lines.append("}")
    return "\n".join(lines) + "\n"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "Packed" if name == "Array" else str(name)
    if "enum" in schema or "anyOf" in schema:
        options = [f'"{value}"' for value in schema.get("enum", [])]
        return " | ".join([*options, *(_type(one) for one in schema.get("anyOf", []))])
    if "prefixItems" in schema:
        return f"[{', '.join(_type(one) for one in schema['prefixItems'])}]"
    if "additionalProperties" in schema:
        return f"Record<string, {_type(schema['additionalProperties'])}>"
    if schema.get("type") == "array":
        return f"Array<{_type(schema['items'])}>"
    return _SIMPLE[schema["type"]]


if __name__ == "__main__":
    TARGET.write_text(declarations(), encoding="utf-8")
