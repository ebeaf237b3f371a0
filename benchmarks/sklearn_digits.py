"""Compare `CapsNetClassifier()` with SVC and a random forest on scikit-learn's digits.

    python benchmarks/sklearn_digits.py [--csv FILE.csv] [--figure FILE.png]

The 1,797 digits in five folds, the same for all. No option is tuned on them for this run: SVC and the forest have
scikit-learn's defaults, SVC also with scaled pixels. Each fold's CPU time is that of one process with one thread.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from capsnet import CapsNetClassifier
from capsnet._support.environment import environment
from capsnet.inference.evaluation import wilson_interval

FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--csv", type=Path, help="write one row for each fold")
    parser.add_argument("--figure", type=Path, help="draw accuracy and time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {
        "CapsNetClassifier()": CapsNetClassifier(device="cpu", random_state=0),
        "CapsNetClassifier(calibrate=False)": CapsNetClassifier(
            calibrate=False, device="cpu", random_state=0
        ),
        "SVC()": make_pipeline(MinMaxScaler(), SVC(random_state=0)),
        "RandomForestClassifier()": RandomForestClassifier(random_state=0),
    }
    with threadpool_limits(1):
        rows = [row for name, model in models.items() for row in folds(name, model)]
    if options.csv:
        about = {**environment(), "versions": None}
        with options.csv.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, **about} for row in rows)
    if options.figure:
        draw(rows, options.figure)


def folds(name: str, model: Any) -> list[dict[str, Any]]:
    X, y = load_digits(return_X_y=True)
    rows = []
    for fold, (train, test) in enumerate(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y)):
        began = time.process_time()
        fitted = clone(model).fit(X[train], y[train])
        fit_seconds = time.process_time() - began
        began = time.process_time()
        errors = int((fitted.predict(X[test]) != y[test]).sum())
        loss = log_loss(y[test], fitted.predict_proba(X[test])) if hasattr(fitted, "predict_proba") else None
        rows.append(
            {
                "model": name,
                "fold": fold,
                "errors": errors,
                "n": len(test),
                "log_loss": loss,
                "fit_cpu_seconds": fit_seconds,
                "predict_cpu_seconds": time.process_time() - began,
            }
        )
    errors, n = (sum(row[key] for row in rows) for key in ("errors", "n"))
    low, high = wilson_interval(errors, n)
    losses = [row["log_loss"] for row in rows if row["log_loss"] is not None]
    print(
        f"{name:36} {1 - errors / n:.2%} ({1 - high:.2%} to {1 - low:.2%})  fit "
        f"{np.mean([row['fit_cpu_seconds'] for row in rows]):.2f} s  log loss "
        f"{np.mean(losses) if losses else float('nan'):.3f}",
        flush=True,
    )
    return rows


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    from capsnet.report.style import BLUE, INK, MUTED, new_figure, plain, png, text_font

    names = list(dict.fromkeys(row["model"] for row in rows))[::-1]
    figure = new_figure(8.6, 0.5 * len(names) + 1.0)
    left, right = figure.subplots(1, 2, sharey=True)
    for place, name in enumerate(names):
        own = [row for row in rows if row["model"] == name]
        errors, n = (sum(row[key] for row in own) for key in ("errors", "n"))
        low, high = wilson_interval(errors, n)
        left.plot([100 * low, 100 * high], [place, place], color=BLUE)
        left.plot(
            [100 * row["errors"] / row["n"] for row in own],
            [place] * FOLDS,
            "o",
            color=MUTED,
            ms=3,
            alpha=0.6,
        )
        left.plot(100 * errors / n, place, "D", color=BLUE, ms=6)
        right.plot(np.mean([row["fit_cpu_seconds"] for row in own]), place, "D", color=INK, ms=6)
    plain(left, "", "error in five folds, % (95 % interval)")
    plain(right, "", "CPU seconds of a fit, logarithmic")
    right.set_xscale("log")
    left.set_xlim(left=0)
    left.set_yticks(range(len(names)), names, **text_font())
    left.set_ylim(-0.6, len(names) - 0.4)
    target.write_bytes(png(figure))


if __name__ == "__main__":
    main()
