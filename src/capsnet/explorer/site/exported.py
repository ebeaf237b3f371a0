"""Export programs to ONNX and compare them with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capsnet._support.errors import CapsnetError, shown
from capsnet.explorer.programs.program import Outputs
from capsnet.explorer.schemas import MAX_ITERATIONS, MAX_POOL
from capsnet.explorer.session import Session
from capsnet.explorer.site.weights import Weights, WeightStore
from capsnet.inference.export import TOLERANCE, to_onnx

#: Axes whose size a request decides, with their smallest and largest size.
SIZES: dict[str, dict[int, tuple[str, int, int]]] = {
    "pixels": {0: ("layers", 1, 2)},
    "transforms": {0: ("layers", 1, 2)},
    "estimates": {0: ("agents", 1, 50), 1: ("houses", 1, 8)},
    "capsules": {0: ("in_caps", 1, 64)},
    "weight": {0: ("in_caps", 1, 64)},
    "lengths": {0: ("classes", 1, 1000)},
    "targets": {0: ("classes", 1, 1000)},
    "rgba": {0: ("height", 2, 16384), 1: ("width", 2, 16384)},
}
#: Examples with which the weights' rounding is measured.
MEASURED = 100


@dataclass(frozen=True)
class Exported:
    """Hold a program's ONNX model, whose weights lie in a store."""

    content: bytes
    limit: int
    """Largest number of routing iterations."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: tuple[str, ...]
    """Files of the store that it refers to."""

    def session(self, weights: Weights) -> Any:
        """Open it in ONNX Runtime, with the given content of the store."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        contents = [weights[name].tobytes() for name in self.files]
        sizes = [len(content) for content in contents]
        options.add_external_initializers_from_files_in_memory(list(self.files), contents, sizes)
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def run(self, session: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run an opened session."""
        found = session.run(None, {name: inputs[name].numpy() for name in self.inputs})
        return {name: torch.from_numpy(np.asarray(x)) for name, x in zip(self.outputs, found, strict=True)}


def example(name: str, session: Session) -> Tensor:
    """Return an input to trace a program with, of a size in the middle of what is allowed."""
    config = session.model.config
    channels, height, width = config.image_shape
    generator = torch.Generator().manual_seed(0)
    moved = [[20.0, 0.1, 0.9, 1.1, 1.5, -2.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]
    examples: dict[str, Tensor] = {
        "pixels": torch.rand(2, channels * height * width, generator=generator),
        "transforms": torch.tensor(moved),
        "size": torch.tensor(max(1, min(3, *session.maps, MAX_POOL))),
        "pose": torch.randn(session.class_dim, generator=generator) / session.class_dim**0.5,
        "estimates": torch.rand(4, 3, 2, generator=generator) * 5,
        "capsules": torch.rand(3, 4, generator=generator),
        "weight": torch.rand(3, 4, 2, 4, generator=generator),
        "lengths": torch.rand(5, generator=generator),
        "targets": torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]),
        "margins": torch.tensor([0.9, 0.1, 0.5]),
        "rgba": torch.randint(0, 256, (37, 41, 4), generator=generator, dtype=torch.uint8),
        "focus": torch.tensor(-1),
        "parameter": torch.tensor(0),
    }
    return examples.get(name, torch.tensor(0))


def export_variants(name: str, session: Session, store: WeightStore) -> list[Exported]:
    """Export a session's program; its weights go to the store.

    A program with routing is exported for the model's own number of iterations, which is fast, and for the largest.

    Raises:
        CapsnetError: as `export_program`.
    """
    own = min(session.iterations, MAX_ITERATIONS)
    largest = own if "ablation" in session.absent else MAX_ITERATIONS
    limits = {own, largest} if name in ("trace", "child") else {largest}
    return [export_program(name, session, store, limit) for limit in sorted(limits)]


def export_program(name: str, session: Session, store: WeightStore, limit: int = MAX_ITERATIONS) -> Exported:
    """Export a session's program for up to `limit` routing iterations.

    Raises:
        CapsnetError: the program cannot be traced, or ONNX Runtime gives other numbers than PyTorch.
    """
    program = session.programs[name]
    program.limit = limit
    inputs = {key: example(key, session) for key in program.input_names()}
    if "iterations" in inputs:
        inputs["iterations"] = torch.tensor(max(1, limit - 1))
    with torch.no_grad():
        outputs: Outputs = program(**inputs)
    try:
        proto = to_onnx(program, inputs, [f"answer.{key}" for key in outputs], SIZES)
    except Exception as error:  # the exporter raises errors of many kinds
        reason = shown(str(error).strip().partition("\n")[0])[:200]
        raise CapsnetError(
            f"{session.run} cannot be exported: {name} of this model cannot be traced ({reason})"
        ) from error
    strip(proto)
    files = store.move_here(proto, program.weights)
    exported = Exported(proto.SerializeToString(), limit, tuple(inputs), tuple(outputs), files)
    opened = exported.session(store.exact())
    smallest = {
        key: value[0:1] if key in ("pixels", "transforms") else value for key, value in inputs.items()
    }
    difference = 0.0
    for given in (inputs, smallest):
        with torch.no_grad():
            difference = max(difference, largest_difference(exported.run(opened, given), program(**given)))
    if not difference <= TOLERANCE:
        raise CapsnetError(
            f"{session.run} cannot be exported: ONNX Runtime's {name} differs from PyTorch's by {difference:.1e}"
        )
    return exported


def strip(proto: Any) -> None:
    """Remove the exporter's notes, which are most of a small model: stack traces and shapes of intermediate results."""
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in proto.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]


@torch.no_grad()
def rounding(exported: Exported, weights: Weights, session: Session) -> tuple[float, int]:
    """Measure by how much rounded weights change the capsules and drawings of example digits.

    Returns:
        The largest difference of an entry of a class capsule, a length, or a pixel, and the number of digits.
    """
    images = session.pictures[:MEASURED].float().flatten(1) / 255
    if not len(images):
        images = example("pixels", session)
    opened = exported.session(weights)
    still = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    worst = 0.0
    for image in images:
        inputs = {"pixels": image[None], "transforms": still, "focus": torch.tensor(-1)}
        inputs["iterations"] = torch.tensor(min(session.iterations, exported.limit))
        wanted = session.programs["trace"](**inputs)
        kept = {key: wanted[key] for key in ("capsules", "lengths", "reconstructions") if key in wanted}
        worst = max(worst, largest_difference(exported.run(opened, inputs), kept))
    return worst, len(images)


def largest_difference(found: Outputs, wanted: Outputs) -> float:
    """Return the largest difference between the outputs of two engines, relative to numbers above 1."""
    worst = 0.0
    for name, tensor in wanted.items():
        left, right = found[name].double(), tensor.double()
        if left.shape != right.shape:
            raise CapsnetError(
                f"ONNX Runtime gives {name} the shape {tuple(left.shape)}, not {tuple(right.shape)}"
            )
        if right.numel():
            gap = ((left - right).abs() / right.abs().clamp(min=1)).max()
            worst = max(worst, float("inf") if bool(gap.isnan()) else float(gap))
    return worst
