"""Compare the confidence of capsule lengths and of softmax with their accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from capsnet.data import Dataset
from capsnet.data import load as load_set
from capsnet.experiments.figures import by_variant, curves
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import DIGIT_STEPS, NARROW, capsnet, controls, training
from capsnet.experiments.tuning import inner_split
from capsnet.inference.confidence import (
    calibrated,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
)
from capsnet.inference.evaluation import evaluate
from capsnet.report.style import Picture

#: The smallest difference in calibration error that would matter to a user.
MARGIN = Margin(0.005, "half a percentage point between stated and true accuracy")
#: The smallest difference in mean risk that would matter to a user.
RISK_MARGIN = Margin(
    0.0002, "two more errors among 10,000 answers, averaged over all shares of refused images"
)
BINS = 15
#: Digits in a bin that is drawn.
LEAST = 20


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with and without routing, and two controls."""
    plan, like = training(scale, "mnist", DIGIT_STEPS), capsnet(scale)
    same_stem, max_pool, _ = controls(like, plan)
    models = (
        Variant("r3", "CapsNet, 3 routing iterations, with reconstruction", like, plan),
        Variant("r1", "the same without routing", capsnet(scale, routing_iterations=1), plan),
        max_pool,
        same_stem,
    )
    return tuple(replace(variant, pixels="four fifths of mnist") for variant in models)


@lru_cache(maxsize=1)
def split(name: str, data_dir: Path | None) -> tuple[Dataset, Dataset]:
    """Return the data set, and its training images split into training and held-out images."""
    whole = load_set(name, data_dir)
    return whole, inner_split(whole)


def load(variant: Variant, seed: int, data_dir: Path | None) -> Dataset:  # noqa: ARG001
    """Load MNIST without a fifth of its training images."""
    whole, inner = split(variant.training.data, data_dir)
    return replace(whole, train=inner.train)


def measure(trained: Trained) -> Findings:
    """Measure calibration before and after a temperature, and the risk against coverage."""
    _, inner = split(trained.variant.training.data, trained.data_dir)
    held_out = evaluate(trained.model, inner.test.to(trained.device))
    temperature = fit_temperature(held_out.scores.cpu(), held_out.labels[:, 0].cpu())
    test = trained.evaluation
    right = ~test.wrong.cpu().numpy()
    scores = test.scores.double().cpu().numpy()
    before, after = scores.max(1).clip(0, 1), calibrated(scores, temperature).max(1)
    points = reliability(before, right, BINS), reliability(after, right, BINS)
    return Findings(
        {"test": test},
        {
            "ece": expected_calibration_error(before, right, BINS),
            "ece scaled": expected_calibration_error(after, right, BINS),
            "risk": risk_coverage(after, right).area,
            "temperature": temperature,
        },
        {
            name: np.stack([found.confidence, found.accuracy, found.counts]).astype(np.float64)
            for name, found in zip(("before", "after"), points, strict=True)
        },
    )


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw reliability diagrams before and after the temperature."""
    panels = {}
    for name, title in (("before", "confidence as given"), ("after", "confidence after temperature")):
        lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        for variant, runs in by_variant(records).items():
            found = np.stack([run.array(name) for run in runs])
            counts = found[:, 2].sum(axis=0)
            shown = counts >= LEAST
            sums = np.nansum(found[:, :2] * found[:, 2:], axis=0)[:, shown] / counts[shown]
            lines[variant] = (sums[0].tolist(), sums[1].tolist())
        lines["perfect"] = ([0, 1], [0, 1])
        panels[f"{title} | confidence"] = lines
    return [
        curves(
            "calibration",
            panels,
            "accuracy",
            f"Test digits of all seeds together, in {BINS} bins of confidence; bins with fewer than {LEAST} digits are "
            "left out. Below the line of equal confidence and accuracy a network is too sure.",
        )
    ]


EXPERIMENT = Experiment(
    name="calibration",
    number=11,
    title="Is its confidence right?",
    source="The paper uses a capsule's length as the probability that its entity is there",
    protocol=(
        "Train as in table1, but on four fifths of MNIST's training digits. Fit a temperature on the last fifth. On "
        f"the test digits, compare confidence and accuracy in {BINS} bins: the expected calibration error (ECE) is the "
        "mean gap, weighted by the digits in each bin. Before the temperature, the confidence is the length of the "
        "longest capsule or the highest softmax probability; after it, the scores to the power 1/T, divided by their "
        "sum. Mean risk is the error among the most confident answers, averaged over all shares of them (AURC)."
    ),
    deviations={"quick": (*NARROW, "batches of 32"), "full": ()},
    cost={"quick": "about half an hour on 2 cores", "full": "as much as four runs of table1"},
    margins_commit="2f7afa2",
    seeds={"smoke": 1, "quick": 5, "full": 3},
    variants=variants,
    measures=(
        Measure("ece", "ECE"),
        Measure("ece scaled", "ECE after temperature"),
        Measure("risk", "mean risk", digits=3),
        Measure("temperature", "temperature", percent=False, better=None),
        Measure("test", "test error"),
    ),
    claims=(
        Claim(
            "Capsule lengths are better calibrated than a CNN's softmax", "ece", "r3", "cnn-max-pool", MARGIN
        ),
        Claim("… also after temperature", "ece scaled", "r3", "cnn-max-pool", MARGIN),
        Claim(
            "Refusing the least certain answers saves more errors than with a CNN",
            "risk",
            "r3",
            "cnn-max-pool",
            RISK_MARGIN,
        ),
        Claim("Routing improves the calibration of lengths", "ece", "r3", "r1", MARGIN),
    ),
    load=load,
    measure=measure,
    figures=figures,
)
