"""Measure equivariance: fit a linear map from Φ(x) to Φ(Tx) and test it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from capsnet.data.dataset import Examples
from capsnet.experiments.figures import by_variant
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import DIGIT_STEPS, NARROW, capsnet, controls, training
from capsnet.experiments.statistics import estimate
from capsnet.explain import TRANSFORMS, class_pose, fit_equivariance
from capsnet.explain.equivariance import Features
from capsnet.models import Classifier
from capsnet.models.protocols import HasFeatures, HasPoses
from capsnet.report.style import BLUE, FAINT, ORANGE, Picture, new_figure, plain, png, text_font

#: T′ reads as many directions of every model's features as a class capsule has dimensions.
COMPONENTS = 16
#: The smallest difference that would matter to a user.
MARGIN = Margin(0.02, "2 % of the variance; a map that explains so little more has the same uses")


def variants(scale: Scale) -> Sequence[Variant]:
    """Return the networks of `table1`; their trainings are reused."""
    plan = training(scale, "mnist", DIGIT_STEPS)
    return (
        Variant("r3-reconstruction", "CapsNet, with reconstruction", capsnet(scale), plan),
        Variant("r3-no-reconstruction", "CapsNet, no reconstruction", capsnet(scale, decoder=None), plan),
        Variant("r1-reconstruction", "CapsNet without routing", capsnet(scale, routing_iterations=1), plan),
        *controls(capsnet(scale), plan),
    )


def last_layer(model: Classifier, batch_size: int = 250) -> Features:
    """Return Φ of a network without capsules: its last hidden layer."""
    assert isinstance(model, HasFeatures)

    @torch.no_grad()
    def features(images: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG001
        return torch.cat([model.features(part) for part in images.split(batch_size)])  # type: ignore[no-untyped-call]

    return features


def every_second(labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Select every second example of each class.

    The second half would not do: MNIST's last test digits are by other writers than the first.
    """
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for number in set(labels.tolist()):
        chosen[(labels == number).nonzero()[1::2, 0]] = True
    return chosen


def measure(trained: Trained) -> Findings:
    """Measure R² of the linear map and of no change, and the change of length."""
    test, model = trained.dataset.test, trained.model
    assert isinstance(test, Examples)
    each = trained.few(2_000, 5_000)
    images, labels = test.images[: 2 * each].float() / 255, test.labels[: 2 * each]
    images, labels = images.to(trained.device), labels.to(trained.device)
    judged = every_second(labels)
    fit, held_out = ((images[some], labels[some]) for some in (~judged, judged))
    features = class_pose(model) if isinstance(model, HasPoses) else last_layer(model)
    metrics: dict[str, float | None] = {}
    for name, transform in TRANSFORMS.items():
        found = fit_equivariance(features, transform, fit, held_out, components=COMPONENTS)
        metrics |= {
            f"R² {name}": found.r2,
            f"R² unchanged {name}": found.r2_unchanged,
            f"length change {name}": found.length_change,
        }
    for kind in ("R²", "R² unchanged"):
        values = [metrics[f"{kind} {name}"] for name in TRANSFORMS]
        metrics[kind] = mean(value for value in values if value is not None)
    return Findings({"test": trained.evaluation}, metrics)


def notes(records: Sequence[Record]) -> list[str]:
    """Tabulate R² of the linear map, R² of no change, and the change of length."""
    lines = [
        f"| variant | {' | '.join(TRANSFORMS)} |",
        f"|---|{'---|' * len(TRANSFORMS)}",
    ]
    for variant, runs in by_variant(records).items():
        cells = []
        for name in TRANSFORMS:
            numbers = [
                found.mean
                for kind in ("R²", "R² unchanged", "length change")
                if (found := estimate(runs, f"{kind} {name}")) is not None
            ]
            cells.append("{:.2f} ({:.2f}); {:+.3f}".format(*numbers) if len(numbers) == 3 else "–")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return ["R² of T′ (in brackets: R² of no change); mean change of the features' length:", "\n".join(lines)]


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw R² of T′ as bars, each with a line for R² of no change."""
    groups = by_variant(records)
    figure = new_figure(7.2, 2.9)
    panels = figure.subplots(1, len(TRANSFORMS), sharey=True)
    for panel, name in zip(panels, TRANSFORMS, strict=True):
        for row, runs in enumerate(groups.values()):
            fitted, still = (estimate(runs, f"{kind} {name}") for kind in ("R²", "R² unchanged"))
            if fitted is None or still is None:
                continue
            colour = ORANGE if runs[0].control else BLUE
            panel.barh(row, max(0.0, fitted.mean), color=colour, height=0.6, alpha=0.75)
            panel.plot([max(0.0, still.mean)] * 2, [row - 0.38, row + 0.38], color="black", linewidth=1.6)
        panel.set_yticks(range(len(groups)), list(groups), **text_font())
        panel.set_xlim(0, 1)
        plain(panel, name, "R²")
        panel.grid(axis="x", color=FAINT)
    panels[0].invert_yaxis()
    about = "; ".join(
        f"{variant} {found.mean:.2f}" for variant, runs in groups.items() if (found := estimate(runs, "R²"))
    )
    return [
        Picture(
            "equivariance",
            png(figure),
            f"R² of a linear map that predicts the transformed digit's features, by transform; means: {about}",
            "Bar: R² of the fitted linear map on held-out digits. Black line: R² of no change. A high black line means "
            "that the transform hardly changes the features.",
            wide=True,
        )
    ]


EXPERIMENT = Experiment(
    name="equivariance",
    number=4,
    title="Equivariance: the pose changes linearly with the image",
    source="Sections 1 and 5.1: a claim without a number",
    protocol=(
        "Networks are trained as in `table1`. Test digits are rotated, moved, enlarged or thickened. For each class, a "
        "linear map T′ with Φ(Tx) ≈ T′Φ(x) is fitted on one half of the digits and tested by R² on the other half. "
        "Φ is the pose of the true class's capsule, or a CNN's last hidden layer. Of the hidden layer, T′ reads the "
        f"{COMPONENTS} principal directions within the class and predicts all features. R² is the explained share of "
        'the variance within classes. R² of "no change" (T′ = I) is reported beside it, because features that ignore '
        "the transform are easy to predict."
    ),
    deviations={
        "quick": (*NARROW, "batches of 32", "fitted on 2,000 digits, tested on 2,000 others"),
        "full": ("the paper makes the claim and reports no measurement",),
    },
    cost={
        "quick": "20 minutes on 2 cores after table1, because it reuses its trainings",
        "full": "minutes after table1",
    },
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 8, "full": 3},
    variants=variants,
    measures=(
        Measure("R²", "R² of T′, mean", percent=False, better="higher"),
        Measure("R² unchanged", "R² of no change", percent=False, better="lower"),
        Measure("test", "test error", better=None),
    ),
    claims=(
        Claim(
            "Poses follow the image more linearly than a max-pooling CNN's features",
            "R²",
            "r3-reconstruction",
            "cnn-max-pool",
            MARGIN,
        ),
        Claim(
            "… than those of the same stem without capsules",
            "R²",
            "r3-reconstruction",
            "cnn-same-stem",
            MARGIN,
        ),
        Claim("… than averaged features", "R²", "r3-reconstruction", "cnn-average-pool", MARGIN),
        Claim(
            "Poses change more with the image than a max-pooling CNN's features: they are less invariant",
            "R² unchanged",
            "r3-reconstruction",
            "cnn-max-pool",
            MARGIN,
        ),
        Claim("Routing makes them more linear", "R²", "r3-reconstruction", "r1-reconstruction", MARGIN),
        Claim(
            "Reconstruction makes them more linear",
            "R²",
            "r3-reconstruction",
            "r3-no-reconstruction",
            MARGIN,
        ),
    ),
    measure=measure,
    notes=notes,
    figures=figures,
)
