"""Fuzz the files of a run folder as a resumed training and the report read them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsnet.models import CapsNet
    from capsnet.training.step import Stepper
    from torture.fuzz.target import Check

#: The first byte of an input selects the file; the rest is its content.
STATE, POSITION, MODEL, RESULT, METRICS = range(5)
RESULT_JSON = {
    "test_error": 0.5,
    "errors": 1,
    "n": 2,
    "seed": 0,
    "steps": 7,
    "epochs": 7.0,
    "seconds": 1.5,
    "device": "cpu",
    "environment": {"cores": 2, "versions": {"torch": "2"}, "gpu": None, "python": "3"},
}
METRICS_JSON = (
    {"step": 1, "loss": 0.5, "margin": 0.5, "learning_rate": 0.001, "images_per_second": 9.0},
    {"step": 1, "test_error": 0.5, "interval_95": [0.1, 0.9]},
)


def words() -> tuple[str, ...]:
    """Return words that occur in such files."""
    names = ("step", "seconds", "loss", "test_error", "dtype", "shape", "data_offsets", "checksum")
    kinds = ("F32", "I64", "BF16", "U8", "F8_E4M3", "C64", "__metadata__")
    tensors = ("model.", "optimizer.0.exp_avg", "optimizer.0.step", "random.cpu")
    return (*(f'"{name}"' for name in names + kinds), *tensors, "1e400", "NaN", "-1", "[[", "null")


def tiny_stepper() -> tuple[CapsNet, Stepper]:
    """Return a network of thirty weights, and its training after one step."""
    import torch

    from capsnet.data.dataset import Examples
    from capsnet.models import CapsNet, CapsNetConfig
    from capsnet.training.config import TrainConfig
    from capsnet.training.step import Stepper

    torch.manual_seed(0)
    shape = (1, 5, 5)
    model = CapsNet(
        CapsNetConfig(
            image_shape=shape,
            num_classes=2,
            stem_channels=1,
            stem_kernel=2,
            primary_types=1,
            primary_dim=2,
            primary_kernel=2,
            class_dim=2,
            decoder=None,
        ),
        backend="reference",
    )
    examples = Examples(torch.arange(50, dtype=torch.uint8).reshape(2, *shape), torch.tensor([0, 1]))
    stepper = Stepper(model, examples, TrainConfig(), 2, "cpu")
    stepper.step(torch.tensor([0, 1]), torch.empty(2, 0), 0.001)
    return model, stepper


def run_seeds() -> list[bytes]:
    """Return valid files of each kind."""
    import torch
    from safetensors.torch import save

    model, stepper = tiny_stepper()
    state = {name: tensor.contiguous() for name, tensor in stepper.state().items()}
    short = {name: tensor for name, tensor in state.items() if name != "random.cpu"}
    odd = {"model.a": torch.ones(2, dtype=torch.int64), "optimizer.x.y": torch.ones(0)}
    metrics = "".join(json.dumps(line) + "\n" for line in METRICS_JSON)
    return [
        bytes([STATE]) + save(state),
        bytes([STATE]) + save(short),
        bytes([STATE]) + save(odd, {"position": "{}", "checksum": "0"}),
        bytes([POSITION]) + b'{"step": 3, "seconds": 1.5}',
        bytes([MODEL]) + save(dict(model.state_dict())),
        bytes([MODEL]) + save({name: tensor.half() for name, tensor in model.state_dict().items()}),
        bytes([RESULT]) + json.dumps(RESULT_JSON).encode(),
        bytes([METRICS]) + metrics.encode(),
    ]


def prepare_run(folder: Path) -> Check:
    """Prepare a check that reads a file as a resumed training and a report do."""
    import torch
    from safetensors.torch import save

    from capsnet._support.errors import CapsnetError
    from capsnet._support.weights import load_weights, read_weights
    from capsnet.data.dataset import Dataset, Examples
    from capsnet.report.facts import result as facts
    from capsnet.report.material import Material
    from capsnet.report.page import render
    from capsnet.training.checkpoint import NEWEST, checksum
    from capsnet.training.config import TrainConfig
    from capsnet.training.run import Run

    model, stepper = tiny_stepper()
    images = torch.zeros(2, 1, 5, 5, dtype=torch.uint8)
    test = Examples(images, torch.tensor([0, 1]))
    dataset = Dataset("tiny", test, test, ("a", "b"), (1, 5, 5), "Made here.")
    with Run.create(folder / "run", model, TrainConfig()) as run:
        run.finish(model, RESULT_JSON)
    material = Material.of(run.folder, dataset, model, None)
    one = {"a": torch.zeros(2)}
    files: dict[int, Any] = {
        STATE: run.folder / NEWEST,
        MODEL: run.folder / "model.safetensors",
        RESULT: run.folder / "result.json",
        METRICS: run.metrics_path,
    }

    def read(kind: int) -> None:
        if kind == POSITION:
            saved = run.load_checkpoint()
            assert saved is not None
            assert saved.position["step"] >= 0
        elif kind == STATE:  # without the check of its checksum
            tensors, _ = read_weights(files[STATE])
            checksum(tensors, "")
            stepper.load_state(tensors)
        elif kind == MODEL:
            load_weights(model, files[MODEL])
        elif kind == RESULT:
            found = run.result()
            assert found is not None
            page = render("a", "b", [facts(replace(material, result=found))], "c")
            page.encode()
        elif kind == METRICS:
            assert all(line["step"] >= 0 for line in run.metrics())

    def check(data: bytes) -> None:
        kind, body = (data[0] % 5, data[1:]) if data else (STATE, b"")
        if kind == POSITION:
            text = body.decode(errors="replace")
            about = {"position": text, "checksum": checksum(one, text)}
            files[STATE].write_bytes(save(one, about))
        else:
            files[kind].write_bytes(body)
        with suppress(CapsnetError):
            read(kind)

    return check
