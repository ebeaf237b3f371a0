"""Compare the routings: the same stem, data, steps and seeds, each with its own learning rate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from capsnet._support.threads import without_denormals
from capsnet.data.dataset import middle_batch
from capsnet.experiments.figures import dots
from capsnet.experiments.held_out import DEVIATION, load_fewer, with_fewer
from capsnet.experiments.recipe import (
    Claim,
    Experiment,
    Margin,
    Measure,
    Scale,
    Trained,
    Variant,
    own_test_set,
)
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import AVERAGED, LONGER, NARROW, Steps, capsnet, controls, training
from capsnet.models.cnn import Output
from capsnet.models.cost import training_memory
from capsnet.report.style import Picture

#: Training steps; MNIST, where the routings are closest, has longer trainings at the quick scale.
STEPS = Steps(quick=1200, full=20_000, quick_batch=32)


@dataclass(frozen=True)
class Part:
    """Hold what differs between the data sets."""

    margin: Margin
    """The smallest difference in error that would matter to a user."""
    image_shape: tuple[int, int, int]
    num_classes: int = 10
    steps: Steps = STEPS
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Training options of the quick scale."""


PARTS = {
    "mnist": Part(
        Margin(0.002, "two digits in 1,000; between closer routings, time and memory decide"),
        (1, 28, 28),
        steps=replace(STEPS, quick=2400),
        quick=LONGER,
    ),
    "multimnist": Part(Margin(0.01, "one pair in 100"), (1, 36, 36)),
    "smallnorb": Part(Margin(0.01, "one pair of photographs in 100"), (2, 32, 32), 5),
}
#: Routings and their iterations: those of their papers.
ROUTINGS = {
    "dynamic": 3,
    "self-attention": 1,
    "em": 3,
    "inverted-attention": 2,
    "variational-bayes": 3,
}
#: Examples in the batch whose step is timed, and repetitions.
BATCH, REPETITIONS = 128, 7


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with each routing and with a fully connected head, on each data set."""
    found: list[Variant] = []
    for data, part in PARTS.items():
        plan = training(scale, data, part.steps, schedule="one-cycle", quick=part.quick)
        fields = {"image_shape": part.image_shape, "num_classes": part.num_classes}
        models = [
            Variant(
                name,
                f"CapsNet's stem, {name} routing" + (f", {count} iterations" if count > 1 else ""),
                capsnet(scale, routing=name, routing_iterations=count, **fields),
                plan,
            )
            for name, count in ROUTINGS.items()
        ]
        output: Output = "sigmoid" if data == "multimnist" else "softmax"
        head, *_ = controls(capsnet(scale, **fields), plan, output)
        named = [
            replace(model, name=f"{data}-{name}", about=f"{model.about}; {data}")
            for model, name in zip((*models, head), (*ROUTINGS, "head"), strict=True)
        ]
        found += with_fewer(named, scale) if data == "mnist" else named
    return tuple(found)


def measure(trained: Trained) -> Findings:
    """Measure the error, the time of a training step, and what it keeps in memory."""
    model, device = trained.model, trained.device
    source = trained.dataset.train.to(device)
    rows = torch.arange(min(BATCH, len(source)), device=device)
    batch = middle_batch(source, rows)
    seconds = []
    model.train()
    for _ in range(2 if trained.scale == "smoke" else REPETITIONS):
        start = time.perf_counter()
        with without_denormals(device.type == "cpu"):  # as a training step
            model.loss(batch)["loss"].backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    model.zero_grad()
    model.eval()
    found = own_test_set(trained)
    kept = training_memory(trained.variant.model, BATCH).activations
    return replace(found, metrics={"step": 1000 * median(seconds[1:]), "kept": kept / 2**20})


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw the errors, one figure for each data set."""
    return [
        dots(
            f"routings-{data}",
            own,
            "test",
            f"{data} error, %",
            shows="toys" if data == "smallnorb" else None,
            log=True,
        )
        for data in PARTS
        if (own := [record for record in records if record.variant.startswith(f"{data}-")])
    ]


EXPERIMENT = Experiment(
    name="routings",
    number=12,
    title="Which routing?",
    source="Each routing's paper compares it with dynamic routing, in networks that differ in more than the routing",
    protocol=(
        "The convolutional stem, the primary capsules, the decoder and the loss are those of CapsNet; only the routing "
        "differs. Each has the number of iterations of its paper. Lengths of the class capsules are the scores. Where "
        "a routing gives activations, they become the lengths; where its poses are normalised, a linear map shared by "
        "all classes gives the lengths. EM routing starts with β_u = 4.5 and λ = 0.05, chosen on training images of "
        "MNIST: with λ = 0.01 and β_u = 0, which suit matrix capsules, six seeds erred in 38 %. "
        "The head is a fully connected layer in place of the capsules. Data: MNIST, pairs of overlapping digits, and "
        "smallNORB, whose test images show 25 toys. A step is loss and gradients of 128 training images with the "
        "threads of the run; the machine may be shared. Kept: what the forward pass keeps for the backward pass, from "
        "the shapes."
    ),
    deviations={
        "quick": (
            *NARROW,
            "batches of 32",
            *(f"MNIST: {text}" for text in (AVERAGED, DEVIATION)),
            "class capsules are vectors, not matrices",
        ),
        "full": ("class capsules are vectors, not matrices",),
    },
    cost={"quick": "about three hours on 2 cores", "full": "not timed"},
    margins_commit="b01e296",
    seeds={"smoke": 1, "quick": 3, "full": 3},
    variants=variants,
    measures=(
        Measure("test", "error"),
        Measure("step", "ms per step", percent=False, better="lower", digits=0),
        Measure("kept", "kept, MiB", percent=False, better="lower", digits=0),
    ),
    claims=tuple(
        Claim(text.format(data), "test", f"{data}-{ours}", f"{data}-{against}", part.margin)
        for data, part in PARTS.items()
        for text, ours, against in (
            *(
                ("{}: " + f"{name} is better than dynamic routing", name, "dynamic")
                for name in list(ROUTINGS)[1:]
            ),
            ("{}: dynamic routing is better than a fully connected head", "dynamic", "head"),
            ("{}: self-attention is better than a fully connected head", "self-attention", "head"),
        )
    ),
    headlines=tuple(f"{data}-dynamic" for data in PARTS),
    load=load_fewer,
    measure=measure,
    figures=figures,
)
