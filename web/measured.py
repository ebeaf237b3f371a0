"""Measure what the tutorial shows beside its live figures: `python web/measured.py FILE`.

T′ is the linear map that predicts a class capsule's pose after a rotation of the image (chapter 2).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import capsnet
from capsnet.explain import class_pose, fit_equivariance, rotation
from capsnet.explain.equivariance import fit_maps

DEGREES = 15.0
#: Test digits that fit T′; the rest measures it.
FITTED = 700


def main() -> None:
    """Fit and measure T′ for the shipped model, and write it as JSON."""
    model, dataset = capsnet.load_model("capsnet-mnist"), capsnet.load_dataset("mnist5k")
    images, labels = dataset.test.images.float() / 255, dataset.test.labels.flatten()
    fit, held_out = (images[:FITTED], labels[:FITTED]), (images[FITTED:], labels[FITTED:])
    turned = rotation(DEGREES)
    found = fit_equivariance(class_pose(model), turned, fit, held_out)
    maps = fit_maps(class_pose(model), turned, fit)
    # Rows of the page's matrices are outputs; `fit_maps` multiplies from the right.
    written = {
        "degrees": DEGREES,
        "iterations": model.config.routing_iterations,
        "maps": [maps[number].T.float().tolist() for number in range(model.config.num_classes)],
        "r2": found.r2,
        "r2_unchanged": found.r2_unchanged,
        "examples": found.examples,
    }
    Path(sys.argv[1]).write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
