"""Tell digits from images that are no digits, by length, by reconstruction and by softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet.data import Dataset, digits
from capsnet.data.dataset import Examples, Source
from capsnet.data.unfamiliar import letters, noise
from capsnet.experiments.figures import dots
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant, load_data
from capsnet.experiments.record import Findings
from capsnet.experiments.scales import DIGIT_STEPS, NARROW, capsnet, controls, training
from capsnet.inference.confidence import reconstruction_errors, typical_errors, typicality
from capsnet.inference.evaluation import evaluate

#: A number for each image, larger for familiar ones.
Rule = Callable[[Source], NDArray[np.float64]]

#: Training digits whose reconstruction errors are the reference.
REFERENCE = 10_000
#: The smallest difference that would matter to a user.
MARGIN = Margin(0.01, "one in 100 pairs of a digit and another image is ordered differently")
SETS = {"fashion": "garments (Fashion-MNIST)", "letters": "printed letters", "noise": "noise"}
#: The variant whose rule is the reconstruction error; the others' rule is their highest score.
DRAWING = "capsule-drawing"


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet with two rules, and two controls with softmax; trainings are those of `table1`."""
    plan, like = training(scale, "mnist", DIGIT_STEPS), capsnet(scale)
    same_stem, max_pool, _ = controls(like, plan)
    return (
        Variant(
            DRAWING, "CapsNet: typicality, from the reconstruction error of the predicted class", like, plan
        ),
        Variant("capsule-length", "the same CapsNet: length of the longest capsule", like, plan),
        max_pool,
        same_stem,
    )


def load(variant: Variant, seed: int, data_dir: Path | None) -> Dataset:
    """Load MNIST, and check that Fashion-MNIST is there before any training."""
    garments(data_dir)
    return load_data(variant, seed, data_dir)


@lru_cache(maxsize=1)
def garments(data_dir: Path | None) -> Examples:
    """Load Fashion-MNIST's test images."""
    test = digits.load("fashion-mnist", data_dir).test
    assert isinstance(test, Examples)
    return test


def auroc(familiar: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """Return the share of pairs in which the familiar image has the larger number; ties count half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate((familiar, strange)))[: len(familiar)]
    n, m = len(familiar), len(strange)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def measure(trained: Trained) -> Findings:
    """Measure the area under the ROC curve for each set of other images."""
    test = trained.dataset.test
    assert isinstance(test, Examples)
    few = trained.few(10_000, 10_000)
    others = {"fashion": garments(trained.data_dir), "letters": letters(), "noise": noise(1_000)}
    rule = _typicality(trained) if trained.variant.name == DRAWING else _highest_score(trained)
    familiar = rule(_first(test, few))
    areas = {name: auroc(familiar, rule(_first(other, few))) for name, other in others.items()}
    return Findings({"test": trained.evaluation}, areas)


def _highest_score(trained: Trained) -> Rule:
    def rule(source: Source) -> NDArray[np.float64]:
        scores = evaluate(trained.model, source.to(trained.device)).scores
        return scores.amax(dim=1).double().cpu().numpy()

    return rule


def _typicality(trained: Trained) -> Rule:
    model, train = trained.model, trained.dataset.train
    assert isinstance(train, Examples)
    some = _first(train, trained.few(REFERENCE, REFERENCE))
    classes = len(trained.dataset.class_names)
    found = evaluate(model, some.to(trained.device))
    errors = reconstruction_errors(model, some)
    known = typical_errors(errors, found.labels[:, 0].cpu(), found.predictions[:, 0].cpu(), classes)

    def rule(source: Source) -> NDArray[np.float64]:
        predicted = evaluate(model, source.to(trained.device)).predictions[:, 0].cpu()
        return typicality(reconstruction_errors(model, source), predicted, known)

    return rule


def _first(examples: Examples, count: int) -> Examples:
    return examples.subset(torch.arange(min(count, len(examples))))


EXPERIMENT = Experiment(
    name="unfamiliar",
    number=10,
    title="Is it like the training images?",
    source="The paper does not ask; its networks can draw what they see",
    protocol=(
        "Train on MNIST as in table1. Then give each test digit and each image that is no digit a number: the length "
        "of the longest capsule, the highest softmax probability, or the typicality, which compares the "
        f"reconstruction error with that of the correctly classified among the first {REFERENCE:,} training digits, by "
        "class. The measure is the area under the ROC curve: the share of pairs of a digit and another image in which "
        "the digit has the larger number. Other images: Fashion-MNIST's 10,000 test images; letters that look like no "
        "digit, printed in 12 fonts and placed like MNIST's digits; 1,000 images of noise. None of them is used to "
        "set anything."
    ),
    deviations={"quick": (*NARROW, "batches of 32"), "full": ()},
    cost={"quick": "minutes after table1, because it reuses its trainings", "full": "minutes after table1"},
    margins_commit="2f7afa2",
    seeds={"smoke": 1, "quick": 8, "full": 3},
    variants=variants,
    measures=(
        *(
            Measure(name, f"AUROC, {title}", percent=False, better="higher", digits=3)
            for name, title in SETS.items()
        ),
        Measure("test", "test error"),
    ),
    claims=tuple(
        Claim(f"{SETS[name]}: {text}", name, ours, against, MARGIN)
        for name in ("fashion", "letters")
        for text, ours, against in (
            ("reconstruction notices them better than capsule length", DRAWING, "capsule-length"),
            ("reconstruction notices them better than a CNN's softmax", DRAWING, "cnn-max-pool"),
            ("capsule length notices them better than a CNN's softmax", "capsule-length", "cnn-max-pool"),
        )
    ),
    load=load,
    measure=measure,
    figures=lambda records: [
        dots(f"unfamiliar-{name}", records, name, f"AUROC, MNIST against {title}", percent=False)
        for name, title in SETS.items()
        if name != "noise"
    ],
)
