"""Measure the effect of the number of routing iterations (the paper's appendix A)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from capsnet.data.dataset import Source
from capsnet.experiments.figures import by_variant, curves
from capsnet.experiments.held_out import DEVIATION, load_fewer, with_fewer
from capsnet.experiments.means import t_interval
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant
from capsnet.experiments.recipes.table1 import MARGIN, STEPS
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import AVERAGED, LONGER, NARROW, capsnet, training
from capsnet.experiments.statistics import estimate
from capsnet.explain import coupling_entropy, dead_share, logit_changes
from capsnet.models.protocols import Traceable
from capsnet.report.style import Picture

ITERATIONS = (1, 2, 3, 5)
#: Number of iterations over which the logits are followed, for every network.
FOLLOWED = 10
#: The training loss is the mean over this many last lines of metrics, each of ten steps.
LAST_LINES = 10
#: The smallest difference in training loss that would matter to a user; of errors, that of `table1`.
LOSS_MARGIN = Margin(
    0.002, "about a tenth of the final margin loss, 0.02, of a trial run with three iterations"
)


def variants(scale: Scale) -> Sequence[Variant]:
    """Return the network of `table1` with r = 1, 2, 3 and 5."""
    plan = training(scale, "mnist", STEPS, quick=LONGER)
    networks = (
        Variant(
            f"r{r}",
            f"CapsNet, {r} routing iteration{'s' * (r > 1)}",
            capsnet(scale, routing_iterations=r),
            plan,
        )
        for r in ITERATIONS
    )
    return with_fewer(networks, scale)


def routing_statistics(model: Traceable, source: Source, count: int, batch_size: int = 50) -> Findings:
    """Measure logit changes, coupling entropy and the share of dead capsules."""
    device = next(model.parameters()).device
    changes, entropies, primary, classes = [], [], [], []
    for part in torch.arange(min(count, len(source))).split(batch_size):  # type: ignore[no-untyped-call]
        images = source.to(device).batch(part.to(device)).images
        own, followed = model.trace(images), model.trace(images, FOLLOWED)
        changes.append(logit_changes(followed.routing).mean(dim=1).cpu())
        entropies.append(float(coupling_entropy(own.routing)[-1].mean()))
        primary.append(own.primary.norm(dim=-1).amax(dim=0, keepdim=True)[..., None])
        classes.append(own.capsules)
    return Findings(
        metrics={
            "entropy": mean(entropies),
            "dead primary": dead_share(torch.cat(primary)),
            "dead class": dead_share(torch.cat(classes)),
        },
        arrays={"logit change": torch.stack(changes).mean(dim=0).numpy().astype(np.float32)},
    )


def measure(trained: Trained) -> Findings:
    """Measure test error, training loss and the routing statistics on test digits."""
    assert isinstance(trained.model, Traceable)
    found = routing_statistics(trained.model, trained.dataset.test, trained.few(1_000, 2_000))
    losses = [line for line in trained.run.metrics() if "loss" in line][-LAST_LINES:]
    metrics = dict(found.metrics)
    for part in ("loss", "margin"):
        metrics[f"train {part}"] = mean(line[part] for line in losses)
    return Findings({"test": trained.evaluation}, metrics, found.arrays)


def slope(changes: NDArray[Any]) -> float:
    """Return the slope of log₁₀ of the logit changes (negative in figure A.1)."""
    steps = np.arange(len(changes), dtype=np.float64)
    return float(np.polyfit(steps, np.log10(np.maximum(changes, 1e-30)), 1)[0])


def notes(records: Sequence[Record]) -> list[str]:
    """Say whether the logit changes fall, as in the paper's figure A.1."""
    lines = []
    for variant, runs in by_variant(records).items():
        slopes = [slope(run.array("logit change")) for run in runs]
        middle, (low, high) = mean(slopes), t_interval(slopes)
        word = "falls" if high < 0 else "rises" if low > 0 else "neither rises nor falls clearly"
        between = f" ({10**low:.2f} to {10**high:.2f})" if isfinite(low) else ""
        lines.append(
            f"- {variant}: {word}, by a factor of {10**middle:.2f}{between} from one iteration to the next."
        )
    return [
        "**The paper's figure A.1** shows that the change of the logits falls with each iteration. In these runs it:",
        "\n".join(lines),
    ]


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw the logit changes per iteration, and error, loss and entropy against r."""
    groups = by_variant(records)
    changes = {}
    for variant, runs in groups.items():
        values = np.mean([run.array("logit change") for run in runs], axis=0)
        changes[variant] = ([float(step) for step in range(1, len(values) + 1)], np.log10(values).tolist())
    panels = {}
    for key, title, factor in (
        ("test", "test error, %", 100),
        ("train margin", "margin loss in training, × 1000", 1000),
        ("entropy", "entropy of the couplings, share of the largest", 1),
    ):
        found = [(runs[0].model["routing_iterations"], estimate(runs, key)) for runs in groups.values()]
        points = sorted((r, factor * value.mean) for r, value in found if value is not None)
        panels[f"{title} | routing iterations r"] = {"r": ([r for r, _ in points], [y for _, y in points])}
    return [
        curves(
            "routing-iterations-logits",
            {"| routing iteration": changes},
            "log₁₀ of the logits' mean change",
            "Networks trained with r iterations, all evaluated with ten. In the paper's figure A.1 the lines fall.",
        ),
        curves("routing-iterations", panels, "", "Means over the seeds."),
    ]


EXPERIMENT = Experiment(
    name="routing-iterations",
    number=6,
    title="The number of routing iterations",
    source="Figures A.1 and A.2: the logits' change falls log-linearly; r = 3 trains to a lower loss (CIFAR-10)",
    protocol=(
        "Networks are trained and tested as in `table1`, with r = 1, 2, 3 and 5. Three things are measured on test "
        "digits: the mean change of the logits from each iteration to the next, over ten iterations; the entropy of "
        "the couplings after the network's last iteration, relative to its maximum (1 for uniform couplings); and the "
        "share of dead capsules, which are never longer than 0.01."
    ),
    deviations={
        "quick": (*NARROW, "batches of 32", AVERAGED, DEVIATION, "routing measured on 1,000 test digits"),
        "full": ("MNIST; the paper's figure A.2 uses CIFAR-10",),
    },
    cost={
        "quick": "about 40 minutes on 2 cores after table1, whose trainings of r = 1 and 3 it reuses",
        "full": "as much as four runs of table1",
    },
    margins_commit="383bbff",
    seeds={"smoke": 1, "quick": 8, "full": 3},
    variants=variants,
    measures=(
        Measure("test", "test error"),
        Measure("train margin", "margin loss in training", percent=False, digits=4),
        Measure("entropy", "entropy of couplings", percent=False, better=None, digits=3),
        Measure("dead primary", "dead primary capsules", better=None, digits=1),
        Measure("dead class", "dead class capsules", better=None, digits=1),
    ),
    claims=(
        Claim("r = 3 has a lower test error than r = 1", "test", "r3", "r1", MARGIN),
        Claim("r = 3 has a lower test error than r = 2", "test", "r3", "r2", MARGIN),
        Claim("More than three iterations help", "test", "r5", "r3", MARGIN),
        Claim("r = 3 trains to a lower loss than r = 1", "train margin", "r3", "r1", LOSS_MARGIN),
    ),
    headlines=("r3",),
    load=load_fewer,
    measure=measure,
    notes=notes,
    figures=figures,
)
