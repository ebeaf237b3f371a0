"""Measure the error against the number of training examples per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from capsnet.data.subsets import PER_CLASS
from capsnet.experiments.figures import by_variant, curves
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant
from capsnet.experiments.recipes.table1 import MARGIN as TABLE1_MARGIN
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import NARROW, Steps, capsnet, controls, training
from capsnet.experiments.statistics import estimate
from capsnet.report.style import Picture

STEPS = Steps(quick=400, full=5_000, quick_batch=64)
#: Names of the training-set sizes (for variants), and examples per class.
SIZES = {"all" if count is None else str(count): count for count in PER_CLASS}
#: For each size, the smallest difference that would matter to a user.
MARGINS = {
    size: Margin(
        share,
        f"about a tenth of a max-pooling CNN's errors with {size} per class; 15 to 20 % more examples save as much",
    )
    for size, share in {"1": 0.05, "5": 0.015, "10": 0.01, "50": 0.003, "100": 0.002}.items()
} | {"all": TABLE1_MARGIN}
#: Approximate number of MNIST's training digits per class.
ALL = 6_000


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet and the controls with 1 to all examples per class."""
    plan = training(scale, "mnist", STEPS, schedule="one-cycle")
    models = (
        Variant("r3", "CapsNet, 3 routing iterations, with reconstruction", capsnet(scale), plan),
        *controls(capsnet(scale), plan),
    )
    sizes = {"1": 1, "all": None} if scale == "smoke" else SIZES
    return tuple(
        replace(
            model,
            name=f"{model.name}-{size}",
            about=f"{model.about}; {size} example{'s' * (count != 1)} per class",
            per_class=count,
        )
        for size, count in sizes.items()
        for model in models
    )


def measure(trained: Trained) -> Findings:
    """Measure the test error, and the number of examples seen per class."""
    plan, count = trained.variant.training, trained.variant.per_class or ALL
    assert plan.steps is not None
    seen = min(count, plan.steps * plan.batch_size / len(trained.dataset.class_names))
    return Findings({"test": trained.evaluation}, {"per class": float(seen)})


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw the error against the number of examples per class."""
    lines: dict[str, dict[float, float]] = {}
    for variant, runs in by_variant(records).items():
        error, count = estimate(runs, "test"), estimate(runs, "per class")
        if error is not None and count is not None and error.mean > 0:
            lines.setdefault(variant.rpartition("-")[0], {})[count.mean] = 100 * error.mean
    sorted_lines = {
        model: ([float(x) for x in sorted(points)], [points[x] for x in sorted(points)])
        for model, points in lines.items()
    }
    return [
        curves(
            "data-efficiency",
            {"| training examples per class": sorted_lines},
            "test error, %",
            "Means over the random subsets; every model gets the same examples.",
            log=True,
        )
    ]


EXPERIMENT = Experiment(
    name="data-efficiency",
    number=5,
    title="Less training data",
    source="A common claim about capsules; the paper reports no number",
    protocol=(
        "Train on 1, 5, 10, 50, 100 or all of MNIST's training digits per class, shifted by up to 2 px. The seed draws "
        "the examples; they and the number of steps are the same for every model. If there are fewer examples than a "
        "batch, all of them are the batch. Test on all 10,000 test digits. Differences are paired by seed."
    ),
    deviations={
        "quick": (
            *NARROW,
            "batches of 64: with all 60,000 digits, 25,600 are seen once and the others never",
        ),
        "full": ("one-cycle learning rate over 5,000 steps",),
    },
    cost={"quick": "about an hour on 2 cores", "full": "about 30 minutes on one data-centre GPU"},
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 8, "full": 5},
    variants=variants,
    measures=(Measure("test", "test error"),),
    claims=tuple(
        Claim(
            f"{size} per class: CapsNet needs less data than {control}",
            "test",
            f"r3-{size}",
            f"{control}-{size}",
            MARGINS[size],
        )
        for size in SIZES
        for control in ("cnn-max-pool", "cnn-same-stem", "cnn-average-pool")
    ),
    headlines=("r3-10", "r3-100", "r3-all"),
    measure=measure,
    figures=figures,
)
