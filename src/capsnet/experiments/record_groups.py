"""Group the comparable records: one recipe, the same options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from capsnet.experiments.recipe import Experiment, Scale, Variant
from capsnet.experiments.recipes import EXPERIMENTS, find_experiment
from capsnet.experiments.record import Record, record_path
from capsnet.experiments.trainings import with_options

#: Scales in the tables, the published network first.
SHOWN: tuple[Scale, ...] = ("full", "quick")


@dataclass(frozen=True)
class Group:
    """Hold the comparable records of one experiment at one scale."""

    experiment: Experiment
    scale: Scale
    records: Sequence[Record]
    stale: Sequence[Record] = ()
    """Records made with other settings than the current recipe; not shown."""
    label: str = ""
    """The options that distinguish this group, for example "500 steps, bf16". Empty for the recipe's own options, and
    for the only group."""

    def of(self, variant: str) -> list[Record]:
        """Return the runs of one variant."""
        return [record for record in self.records if record.variant == variant]

    def not_run(self) -> list[str]:
        """Return the recipe's variants without any record, shown or stale."""
        there = {record.variant for record in (*self.records, *self.stale)}
        return [v.name for v in self.experiment.variants(self.scale) if v.name not in there]

    def left_out(self) -> str:
        """Return a sentence on records that are not shown; "" if all are shown."""
        if not self.stale:
            return ""
        files = [record_path(Path(), r.experiment, r.variant, r.scale, r.seed).as_posix() for r in self.stale]
        many = len(files) > 1
        return (
            f"{len(files)} record{'s' * many} made with other settings than the recipe's: {', '.join(files)}. Remove "
            f"{'them' if many else 'it'} and run `capsnet reproduce {self.experiment.name} --scale {self.scale}` again."
        )

    def deviations(self) -> list[str]:
        """Return the deviations from the published protocol."""
        found = list(self.experiment.deviations[self.scale])
        asked = {variant.name: variant for variant in self.experiment.variants(self.scale)}
        shortened = sorted(
            {
                (record.training["steps"], planned, record.training["schedule"])
                for record in self.records
                if (planned := asked[record.variant].training.steps) != record.training["steps"]
            }
        )
        found += [
            f"{steps:,} steps instead of {planned:,}, {schedule} learning rate"
            for steps, planned, schedule in shortened
        ]
        bf16 = {record.variant for record in self.records if record.training["precision"] == "bf16"}
        if bf16:
            every = bf16 == {record.variant for record in self.records}
            found.append(f"{'' if every else ', '.join(sorted(bf16)) + ': '}trained with bfloat16 products")
        return found


def groups(records: Sequence[Record]) -> list[Group]:
    """Group records by experiment, scale and options, without smoke runs.

    Raises:
        CapsnetError: a record belongs to an unknown experiment.
    """
    for record in records:
        find_experiment(record.experiment)
    found = []
    for experiment in EXPERIMENTS.values():
        for scale in SHOWN:
            found += _grouped(
                experiment, scale, [r for r in records if (r.experiment, r.scale) == (experiment.name, scale)]
            )
    return found


def _grouped(experiment: Experiment, scale: Scale, records: Sequence[Record]) -> list[Group]:
    variants = {variant.name: variant for variant in experiment.variants(scale)}
    places = {name: place for place, name in enumerate(variants)}
    alike: dict[str, list[Record]] = {}
    stale = []
    for record in sorted(records, key=lambda r: (places.get(r.variant, len(places)), r.variant, r.seed)):
        variant = variants.get(record.variant)
        options = None if variant is None else _options(variant, record)
        if options is None:
            stale.append(record)
        else:
            alike.setdefault(options, []).append(record)
    # The group with the recipe's own options comes first.
    ordered = sorted(alike.items(), key=lambda item: item[0] != "")
    if not ordered:
        return [Group(experiment, scale, [], stale)] if stale else []
    return [
        Group(experiment, scale, own, () if place else stale, options if len(ordered) > 1 else "")
        for place, (options, own) in enumerate(ordered)
    ]


def _options(variant: Variant, record: Record) -> str | None:
    """Return the options in which a record differs from the recipe.

    Returns:
        The options as text. None if they do not explain the record's settings: the recipe has changed since.
    """
    plan, steps, precision = variant.training, record.training["steps"], record.training["precision"]
    if record.rate_errors:  # each variant has a rate of its own, chosen on training images
        own = replace(plan, learning_rate=record.training["learning_rate"])
        variant = replace(variant, training=own)
    if with_options(variant, steps, precision).settings(record.seed) != record.settings:
        return None
    return ", ".join(
        [f"{steps:,} steps"] * (steps != plan.steps) + [precision] * (precision != plan.precision)
    )
