"""Evaluate the seeds of a variant together, as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from capsnet.experiments.figures import by_variant
from capsnet.experiments.recipe import Trained
from capsnet.experiments.record import Findings, Record
from capsnet.inference.evaluation import wilson_interval


def with_scores(trained: Trained) -> Findings:
    """Measure the test error, and keep every score for ensembles of the seeds."""
    evaluation = trained.evaluation
    return Findings(
        {"test": evaluation},
        arrays={
            "scores": evaluation.scores.numpy().astype(np.float16),
            "labels": evaluation.labels[:, 0].numpy().astype(np.uint8),
        },
    )


def ensembles(records: Sequence[Record]) -> list[str]:
    """Compute the error of each variant's ensemble, with added scores."""
    lines = []
    for variant, runs in by_variant(records).items():
        if len(runs) < 2:
            continue
        total = sum(run.array("scores").astype(np.float64) for run in runs)
        wrong = int((np.argmax(total, axis=1) != runs[0].array("labels")).sum())
        low, high = wilson_interval(wrong, len(runs[0].array("labels")))
        error = wrong / len(runs[0].array("labels"))
        lines.append(
            f"| {variant} | {len(runs)} | {100 * error:.2f} % | {100 * low:.2f} to {100 * high:.2f} % |"
        )
    if not lines:
        return ["No ensemble: each variant has one seed."]
    head = "| ensemble of | models | test error | 95 % interval (Wilson) |\n|---|---|---|---|\n"
    return [
        "The seeds of each variant as an ensemble with added scores:",
        head + "\n".join(lines),
    ]
