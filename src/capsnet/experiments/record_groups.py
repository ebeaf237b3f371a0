"""Which records belong together: those of one recipe, run in the same way. Others are never averaged or compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capsnet.experiments.recipe import Experiment, Scale, Variant
from capsnet.experiments.recipes import EXPERIMENTS, find_experiment
from capsnet.experiments.record import Record, record_path
from capsnet.experiments.trainings import with_options

#: Scales that tables show, the published network first.
SHOWN: tuple[Scale, ...] = ("full", "quick")


@dataclass(frozen=True)
class Group:
    """The records of one experiment at one scale whose settings are the recipe's, but for `options`."""

    experiment: Experiment
    scale: Scale
    records: Sequence[Record]
    stale: Sequence[Record] = ()
    """Records that are not of the recipe as it is now; its texts are not about them, so they are not shown."""
    label: str = ""
    """What tells it from others of this experiment and scale: "500 steps, bf16". Empty for the recipe's own options,
    and where there are no others."""

    def of(self, variant: str) -> list[Record]:
        """The runs of one variant."""
        return [record for record in self.records if record.variant == variant]

    def not_run(self) -> list[str]:
        """The recipe's variants that have no record, and none that is not shown either."""
        there = {record.variant for record in (*self.records, *self.stale)}
        return [v.name for v in self.experiment.variants(self.scale) if v.name not in there]

    def left_out(self) -> str:
        """Which records are not shown, why, and what to do about it; empty if there are none."""
        if not self.stale:
            return ""
        files = [record_path(Path(), r.experiment, r.variant, r.scale, r.seed).as_posix() for r in self.stale]
        many = len(files) > 1
        return (
            f"{len(files)} record{'s' * many} of other settings than the recipe's: {', '.join(files)}. Remove "
            f"{'them' if many else 'it'} and run `capsnet reproduce {self.experiment.name} --scale {self.scale}` again."
        )

    def deviations(self) -> list[str]:
        """From the published protocol: the recipe's, and what the records show."""
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
            f"{steps:,} steps in place of {planned:,}, {schedule} learning rate"
            for steps, planned, schedule in shortened
        ]
        if any(record.training["precision"] == "bf16" for record in self.records):
            found.append("trained with bfloat16 products")
        return found


def groups(records: Sequence[Record]) -> list[Group]:
    """Records by experiment, scale and options, in the order of the paper, the full scale first; without smoke runs.

    Raises:
        CapsnetError: a record of an experiment that there is not.
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
    # As the recipe has it first, if it was run so.
    ordered = sorted(alike.items(), key=lambda item: item[0] != "")
    if not ordered:
        return [Group(experiment, scale, [], stale)] if stale else []
    return [
        Group(experiment, scale, own, () if place else stale, options if len(ordered) > 1 else "")
        for place, (options, own) in enumerate(ordered)
    ]


def _options(variant: Variant, record: Record) -> str | None:
    """How the record was run otherwise than the recipe says, which `--steps` and `--precision` may ask for.

    Returns:
        None where that does not explain its settings: the recipe was another one.
    """
    plan, steps, precision = variant.training, record.training["steps"], record.training["precision"]
    if with_options(variant, steps, precision).settings(record.seed) != record.settings:
        return None
    return ", ".join(
        [f"{steps:,} steps"] * (steps != plan.steps) + [precision] * (precision != plan.precision)
    )
