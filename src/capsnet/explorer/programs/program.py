"""Define what a program is: named tensors in, named tensors out, and the response that they make."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

import torch
from jaxtyping import Int
from pydantic import BaseModel
from torch import Tensor, nn

from capsnet.explorer.schemas import MAX_ITERATIONS, PARAMETERS, Array, Layer
from capsnet.routing import RoutingTrace

Answer = TypeVar("Answer", bound=BaseModel)
Outputs = dict[str, Tensor]
#: A response's form: "array", "value" (a number or a list of them), or a tree of these. A list stands for rows.
Form = str | dict[str, Any] | list[Any]


class Program(nn.Module):
    """One question of the page: its `forward` takes tensors by name and returns the answer's fields as tensors.

    A field of a nested response has a dotted name, "cloud.points". For a list of responses, "rows.lengths", the first
    axis counts them. Numbers in requests (a class, a channel) are int64 scalars, and −1 stands for None.
    """

    answer: ClassVar[type[BaseModel]]
    weights: ClassVar[str] = "weights"
    """An exported site's file for the weights that no earlier program has."""
    limit: int = MAX_ITERATIONS
    """Routing iterations that an exported program computes; it keeps those that the request asks for."""

    @classmethod
    def input_names(cls) -> list[str]:
        """Return the names of the inputs, in order."""
        return [name for name in inspect.signature(cls.forward).parameters if name != "self"]

    def steps(self, iterations: Int[Tensor, ""]) -> int:
        """Return how many routing iterations to compute: an exported program has no loop of variable length."""
        return self.limit if torch.compiler.is_exporting() else int(iterations)

    def kept(self, routing: RoutingTrace, iterations: Int[Tensor, ""]) -> RoutingTrace:
        """Keep the first iterations of a trace: iteration t does not depend on later ones."""
        count = counted(iterations, 1, self.limit)
        each = routing.children_by_iteration
        return replace(
            routing,
            logits=routing.logits[:count],
            couplings=routing.couplings[:count],
            outputs=routing.outputs[:count],
            activations=None if routing.activations is None else routing.activations[:count],
            children=routing.children if each is None else each[:count][-1],
        )

    def run(self, request: BaseModel) -> Outputs:
        """Answer a request."""
        with torch.no_grad():
            outputs: Outputs = self(**inputs_of(request, self.input_names()))
        return outputs


def counted(number: Int[Tensor, ""], low: int, high: int) -> int:
    """Return a number as the size of a slice; an exported program then reads it when it runs."""
    count: int = number.item()  # type: ignore[assignment]
    torch._check(count >= low)  # type: ignore[no-untyped-call]
    torch._check(count <= high)  # type: ignore[no-untyped-call]
    return count


def inputs_of(request: BaseModel, names: list[str]) -> dict[str, Tensor]:
    """Convert a request's fields to a program's inputs."""
    values: dict[str, Any] = {name: getattr(request, name) for name in type(request).model_fields}
    layers: list[Layer] = values.pop("layers", [])
    if layers:
        values["pixels"] = [layer.pixels for layer in layers]
        values["transforms"] = [list(layer.transform.model_dump().values()) for layer in layers]
    if "parameter" in values:
        values["parameter"] = PARAMETERS.index(values["parameter"])
    return {name: _tensor(values[name]) for name in names}


def _tensor(value: Any) -> Tensor:
    if value is None or isinstance(value, int):
        return torch.tensor(-1 if value is None else value)
    return torch.tensor(value, dtype=torch.float32)


def response(answer: type[Answer], outputs: Outputs, **given: Any) -> Answer:
    """Make a program's outputs into a response; fields without an output are None, `given` ones are as they are."""
    form = form_of(answer)
    assert isinstance(form, dict)
    return answer(**{name: given.get(name, _filled(part, name, outputs)) for name, part in form.items()})


def _filled(form: Form, name: str, outputs: Outputs) -> Any:
    if form == "array":
        return Array.of(outputs[name]) if name in outputs else None
    if form == "value":
        return outputs[name].tolist() if name in outputs else None
    if isinstance(form, dict):
        return {key: _filled(part, f"{name}.{key}", outputs) for key, part in form.items()}
    assert isinstance(form, list)
    (row,) = form
    assert isinstance(row, dict)
    own = {key: outputs[f"{name}.{key}"] for key in row}
    count = len(next(iter(own.values())))
    return [{key: _filled(row[key], key, {key: own[key][at]}) for key in row} for at in range(count)]


def form_of(kind: Any) -> Form:
    """Return the form of a response from its schema."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    if kind is Array:
        return "array"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: form_of(field.annotation) for name, field in kind.model_fields.items()}
    if get_origin(kind) is list and isinstance(form_of(get_args(kind)[0]), dict):
        return [form_of(get_args(kind)[0])]
    return "value"
