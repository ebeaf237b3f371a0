"""A tiny training that many tests share: three classes of striped images, learned in 30 steps."""

import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from capsnet import CapsNet, CapsNetConfig
from capsnet.data.dataset import Batch, Dataset, Examples
from capsnet.inference.evaluation import Evaluation
from capsnet.models import build_model
from capsnet.training.config import TrainConfig
from capsnet.training.loop import train
from capsnet.training.run import Run

SMALL = CapsNetConfig(image_shape=(1, 18, 18), num_classes=3, stem_channels=8, primary_types=2, decoder=(16,))


def stripes(n: int, seed: int) -> Examples:
    """Three classes that can be learned: a bright bar at the top, in the middle, at the bottom."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (n, 1, 18, 18), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    for image, label in zip(images, labels, strict=True):
        image[0, 3 + 5 * int(label) : 5 + 5 * int(label)] = 250
    return Examples(images, labels)


DATA = Dataset("stripes", stripes(96, 0), stripes(60, 1), ("top", "middle", "bottom"), (1, 18, 18), "made up")
CONFIG = TrainConfig(
    data="stripes", epochs=5, batch_size=16, save_seconds=0, evaluate_every=2, learning_rate=0.01
)


def run_training(
    folder: Path, config: TrainConfig = CONFIG, model_config: CapsNetConfig = SMALL, data: Dataset = DATA
) -> Evaluation:
    torch.manual_seed(config.seed)
    model = CapsNet(model_config)
    with Run.create(folder, model, config) as run:
        return train(model, data, config, run, device="cpu")


def resume(folder: Path) -> Evaluation:
    with Run.reopen(folder) as run:
        return train(
            build_model(folder, run.training().seed),
            DATA,
            run.training(),
            run,
            device="cpu",
            resume=True,
        )


def train_or_resume(folder: Path) -> None:
    resume(folder) if (folder / "config.json").exists() else run_training(folder)


def hold(folder: Path, connection: Connection) -> None:
    """Keep a new run's folder open until told to end."""
    with Run.create(folder, CapsNet(SMALL), CONFIG):
        connection.send("held")
        connection.recv()


class StopAt:
    """Sends this process a signal when a step is logged, as a person or a scheduler would."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        self.at, self.number = step, number

    def logged(self, step: int, steps: int, values: dict[str, float]) -> None:
        if step >= self.at:
            os.kill(os.getpid(), self.number)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        pass

    def noticed(self, message: str) -> None:
        self.notices = [*getattr(self, "notices", []), message]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in Run(folder).metrics() if "loss" in line]


@dataclass(frozen=True, eq=False)
class Poisoned(Examples):
    """Some examples spoil the batch they are in."""

    bad: tuple[int, ...] = ()

    def batch(self, indices: torch.Tensor, uniforms: torch.Tensor | None = None) -> Batch:
        batch = super().batch(indices, uniforms)
        if torch.isin(indices, torch.tensor(self.bad)).any():
            return batch._replace(images=batch.images * torch.nan)
        return batch


def poisoned(*bad: int) -> Dataset:
    good = stripes(96, 0)
    return replace(DATA, train=Poisoned(good.images, good.labels, bad=bad))


def start(folder: Path, data: Dataset, config: TrainConfig, watch: StopAt | None = None) -> CapsNet:
    torch.manual_seed(config.seed)
    model = CapsNet(SMALL)
    with Run.create(folder, model, config) as run:
        train(model, data, config, run, device="cpu", progress=watch)
    return model
