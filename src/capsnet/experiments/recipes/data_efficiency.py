"""Less training data: error against examples per class, the same examples for every model."""

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
#: Names of the sizes, for variants: examples of each class.
SIZES = {"all" if count is None else str(count): count for count in PER_CLASS}
#: For each size, the smallest difference that would matter to a user.
MARGINS = {
    size: Margin(
        share,
        f"about a tenth of a max-pooling CNN's errors with {size} per class, as 15 to 20 % more examples would save",
    )
    for size, share in {"1": 0.05, "5": 0.015, "10": 0.01, "50": 0.003, "100": 0.002}.items()
} | {"all": TABLE1_MARGIN}
#: MNIST has about so many training digits of each class.
ALL = 6_000


def variants(scale: Scale) -> Sequence[Variant]:
    """CapsNet and the controls with 1, 5, 10, 50, 100 and all examples of each class."""
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
    """The test error, and how many different examples of each class were seen."""
    plan, count = trained.variant.training, trained.variant.per_class or ALL
    assert plan.steps is not None
    seen = min(count, plan.steps * plan.batch_size / len(trained.dataset.class_names))
    return Findings({"test": trained.evaluation}, {"per class": float(seen)})


def figures(records: Sequence[Record]) -> list[Picture]:
    """Error against examples per class."""
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
            {"| training examples of each class, seen in training": sorted_lines},
            "test error, %",
            "Means over the draws; every model sees the same examples.",
            log=True,
        )
    ]


EXPERIMENT = Experiment(
    name="data-efficiency",
    number=5,
    title="Less training data",
    source="A claim made for capsules in general; the paper reports no number",
    protocol=(
        "1, 5, 10, 50, 100 or all of MNIST's training digits of each class, drawn by the seed, the same for every "
        "model, shifted by up to 2 px; the same steps. Where there are fewer examples than in a batch, they are the "
        "batch. Test on all 10,000 test digits; paired by draw."
    ),
    deviations={
        "quick": (
            *NARROW,
            "batches of 64, so that of all 60,000 digits 25,600 are seen once and the others never",
        ),
        "full": ("one-cycle learning rate over 5,000 steps",),
    },
    cost={"quick": "about 25 minutes on 2 cores", "full": "about 30 minutes on one data-centre GPU"},
    seeds={"smoke": 1, "quick": 5, "full": 5},
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
