"""Build the result section: the result and what is needed to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from capsnet.report.curves import duration
from capsnet.report.material import CLASSES_SHOWN, Material
from capsnet.report.page import Section


def result(material: Material) -> Section:
    """Build the section with the table of facts."""
    evaluation, run = material.evaluation, material.result
    low, high = evaluation.interval
    rows: list[tuple[str, str]] = [
        (evaluation.title, f"{evaluation.error:.2%}"),
        ("95 % interval (Wilson)", f"{low:.2%} to {high:.2%}"),
        ("wrong", f"{evaluation.errors:,} of n = {evaluation.n:,} test examples"),
    ]
    recorded = (run.get("errors"), run.get("n"))
    if None not in recorded and recorded != (evaluation.errors, evaluation.n):
        rows.append(("at the end of training", f"{recorded[0]} wrong of {recorded[1]}"))
    if (evaluation.is_multi_label or evaluation.tally.is_imbalanced) and isfinite(
        evaluation.balanced_accuracy
    ):
        rows.append(("balanced accuracy", f"{evaluation.balanced_accuracy:.2%}"))
    rows += [
        ("data", f"{material.dataset.name}. {material.dataset.provenance}"),
        ("model", f"{material.model.architecture}, {material.model.parameter_count():,} parameters"),
        ("training", _how_trained(run, material.training)),
        ("seed", _text(run.get("seed"))),
        ("machine", _machine(run)),
        ("versions", _versions(run)),
    ]
    text = ["The result, and the data, model, training and machine that are needed to reproduce it."]
    if evaluation.is_multi_label:
        text.append("An example counts as correct only if every class is found and none is found by mistake.")
    elif material.present > 1:
        text.append(
            f"Each example has {material.present} classes. It counts as correct only if all of them are found."
        )
    renamed = [
        f"{shown} is {name}"
        for shown, name in zip(material.names, material.dataset.class_names, strict=True)
        if shown.startswith("class ") and shown != name
    ]
    if renamed:
        text.append(
            f"In the figures, {', '.join(renamed[:CLASSES_SHOWN])}{', …' if renamed[CLASSES_SHOWN:] else ''}."
        )
    return Section("Result", text, table=rows, facts=True)


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _how_trained(run: dict[str, Any], options: Mapping[str, Any]) -> str:
    parts = []
    if isinstance(run.get("steps"), int):
        parts.append(f"{run['steps']:,} steps")
    if isinstance(run.get("epochs"), int | float):
        parts.append(f"{run['epochs']:.1f} epochs")
    for name, about in (
        ("batch_size", "batches of {}"),
        ("learning_rate", "learning rate {}"),
        ("schedule", "schedule {}"),
        ("shift", "shifts of up to {} px"),
        ("precision", "{}"),
    ):
        if name in options:
            parts.append(about.format(options[name]))
    if isinstance(run.get("seconds"), int | float):
        parts.append(f"{duration(run['seconds'])} on {_text(run.get('device'))}")
    return ", ".join(parts) or "unknown"


def _machine(run: dict[str, Any]) -> str:
    about = run.get("environment")
    if not isinstance(about, dict):
        return "unknown"
    cores, threads = about.get("cores"), about.get("threads")
    parts = [
        about.get("gpu"),
        about.get("processor"),
        f"{cores} cores" if cores else None,
        f"{threads} threads" if threads else None,
        about.get("platform"),
    ]
    return ", ".join(str(part) for part in parts if part) or "unknown"


def _versions(run: dict[str, Any]) -> str:
    about = run.get("environment")
    if not isinstance(about, dict):
        return "unknown"
    versions = about.get("versions")
    found = {"capsnet": about.get("capsnet"), "python": about.get("python")}
    found |= versions if isinstance(versions, dict) else {}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or "unknown"
