"""Write the section on certainty: reliability, calibration error, risk against coverage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capsnet.inference.confidence import (
    RiskCoverage,
    calibrated,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from capsnet.inference.saved_confidence import Confidence
from capsnet.report.material import Material
from capsnet.report.page import Section
from capsnet.report.style import BLUE, FAINT, FONT, INK, MUTED, ORANGE, SMALL, Picture, new_figure, plain, png

#: Bins of the reliability diagram.
BINS = 10
#: Shares of refused images in the table.
REFUSED = (0.0, 0.02, 0.05, 0.1, 0.2)
BEFORE, AFTER = "the scores, divided by their sum", "with the fitted temperature"


def certainty(material: Material) -> Section:
    """Write the section for test images that show one class each."""
    evaluation = material.evaluation
    correct = (~evaluation.wrong).numpy()
    scores = evaluation.scores.double().numpy()
    saved = Confidence.load(material.folder, scores.shape[1])
    temperature = None if saved is None else saved.temperature
    found = {BEFORE: calibrated(scores).max(axis=1)}
    if saved is not None and temperature is not None:
        found[AFTER] = calibrated(scores, temperature).max(axis=1)
    errors = {name: expected_calibration_error(sure, correct) for name, sure in found.items()}
    text = [
        "A probability is calibrated if predictions with 80 % are correct in 80 % of cases: the points lie on the "
        "diagonal. The calibration error is the mean distance from it, weighted by the number of images (15 bins).",
        "Expected calibration error: "
        + "; ".join(f"{name} {error:.3f}" for name, error in errors.items())
        + ".",
    ]
    if saved is not None and temperature is not None:
        text.append(
            f"The temperature is {temperature:.3g}, fitted on {saved.calibration_images:,} images that were not "
            "trained on."
        )
    else:
        text.append("No images were held out to calibrate with; train with --hold-out 0.1 for that.")
    if saved is not None and saved.reference is not None:
        text.append(
            "Typicality (`capsnet predict`) tells how an image's reconstruction compares with those of correctly "
            "classified training images; near 0 the image is unlike them. It misses many images of other kinds, so "
            "look at the length of the longest capsule too."
        )
    best = list(found.values())[-1]
    risk = risk_coverage(best, correct)
    return Section(
        "How sure, and is it right?",
        text,
        [_reliability_picture(found, correct), _risk_picture(risk)],
        [
            ("least certain images refused", "error among the others"),
            *((f"{share:.0%}", f"{_risk_at(risk, 1 - share):.2%}") for share in REFUSED),
        ],
        notes=[f"Area under the curve of risk against coverage: {risk.area:.4f}; lower is better."],
    )


def _risk_at(risk: RiskCoverage, coverage: float) -> float:
    kept = max(1, round(coverage * len(risk.risk)))
    return float(risk.risk[kept - 1])


def _reliability_picture(found: dict[str, NDArray[np.float64]], correct: NDArray[np.bool_]) -> Picture:
    figure = new_figure(4.4, 4.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for (name, sure), colour in zip(found.items(), (ORANGE, BLUE), strict=False):
        points = reliability(sure, correct, BINS)
        there = points.counts > 0
        above.plot(
            points.confidence[there], points.accuracy[there], "o-", color=colour, markersize=4, label=name
        )
        below.step(
            np.linspace(0, 1, BINS + 1), [*points.counts, points.counts[-1]], where="post", color=colour
        )
    above.legend(frameon=False, prop={"family": FONT, "size": SMALL}, labelcolor=INK)
    plain(above, "", "", "share that is correct")
    plain(below, "", "probability of the prediction", "images")
    below.set_yscale("symlog")
    above.set_xlim(0, 1)
    above.set_ylim(0, 1.02)
    return Picture(
        "reliability",
        png(figure),
        "Reliability diagram: the share of correct predictions against their probability.",
        "On the diagonal, probabilities are right. Below it, the model is too certain. The lower panel counts images.",
    )


def _risk_picture(risk: RiskCoverage) -> Picture:
    figure = new_figure(4.4, 3.1)
    axes = figure.add_subplot()
    axes.plot(100 * risk.coverage, 100 * risk.risk, color=BLUE)
    plain(axes, "", "images that are answered, %", "error among them, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.axhline(100 * float(risk.risk[-1]), color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)))
    return Picture(
        "risk-coverage",
        png(figure),
        "Error among the answered images, against the share of images that are answered.",
        "Towards the left the least certain images are refused, and fewer of the others are wrong. Dashed: all images.",
    )
