"""Records of runs that never ran."""

from dataclasses import asdict, replace

import numpy as np
import torch

from capsnet.experiments import EXPERIMENTS, Record
from capsnet.experiments.record import Answers
from capsnet.experiments.trainings import with_options
from capsnet.inference.evaluation import Evaluation

N = 1000


def made(one: Record) -> Record:
    """With the settings, steps and precision that the recipe has for it, or that its `training` asks for."""
    recipe = {variant.name: variant for variant in EXPERIMENTS[one.experiment].variants(one.scale)}
    if one.variant not in recipe:
        return replace(one, settings="of no recipe")
    variant = with_options(recipe[one.variant], one.training.get("steps"), one.training.get("precision"))
    return replace(one, settings=variant.settings(one.seed), training=asdict(variant.training))


def record(variant: str, seed: int, errors: int, scale: str = "full", control: bool = False) -> Record:
    labels = torch.ones(N, 1, dtype=torch.long)
    labels[:errors] = 0
    evaluation = Evaluation(torch.tensor([[0.0, 1.0]]).repeat(N, 1), labels)
    one = Record(
        experiment="table1",
        variant=variant,
        scale=scale,
        seed=seed,
        settings="0",
        about=f"about {variant}",
        control=control,
        data="mnist",
        provenance="Made up.",
        architecture="capsnet",
        model={},
        training={},
        parameters=8_215_568,
        multiply_adds=201_793_536,
        steps=300_000,
        seconds=60.0,
        device="cpu",
        tests={"test": Answers.of(evaluation)},
        metrics={},
        arrays={},
        code="abc",
        environment={
            "processor": "a processor",
            "threads": 2,
            "versions": {"torch": "9"},
            "capsnet": "0.1",
            "gpu": None,
        },
    )
    return made(one)


def answers(wrong: np.ndarray, groups: np.ndarray | None = None) -> Answers:
    labels = torch.from_numpy(~wrong).long()[:, None]
    return Answers.of(Evaluation(torch.tensor([[0.0, 1.0]]).repeat(len(wrong), 1), labels), groups)


def runs(variant: str, errors: list[int], scale: str = "full", control: bool = False) -> list[Record]:
    return [record(variant, seed, count, scale, control) for seed, count in enumerate(errors)]


def run_on(wrong: np.ndarray, seed: int) -> Record:
    """One run that answers these test images wrongly."""
    return replace(record("r3-reconstruction", seed, 0), tests={"test": answers(wrong)})
