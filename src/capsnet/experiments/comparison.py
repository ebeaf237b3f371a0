"""Compare CapsNet with its controls on any data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from capsnet._support.errors import CapsnetError, NotFinite, shown
from capsnet._support.files import read_json, write_json
from capsnet.data import DATASETS, Dataset, short_name
from capsnet.data.dataset import Examples
from capsnet.data.multi_label import MultiLabel
from capsnet.data.overlapping import Pairs
from capsnet.distributed import pick_device
from capsnet.experiments.figures import by_variant, dots
from capsnet.experiments.progress import Unwatched, Watch
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Variant
from capsnet.experiments.record import COMPARISON, Record
from capsnet.experiments.record_groups import Group
from capsnet.experiments.running import Options, check_writable, chosen_variants, run_experiment
from capsnet.experiments.scales import Steps, capsnet, controls, training
from capsnet.experiments.statistics import estimate
from capsnet.experiments.tuning import RATES, tuned, with_rate
from capsnet.experiments.verdicts import Judgement, judgements, over
from capsnet.models import MODELS
from capsnet.training.run import Run

#: The quick scale takes minutes per model on 2 cores for images of 28×28, including the choice of learning rate.
STEPS = Steps(quick=1000, full=10_000)
#: Three seeds are rarely enough: Student's factor is 4.3 for three and 2.8 for five.
SEEDS = 5
CONTROLS = {
    "cnn-same-stem": "CapsNet makes fewer errors than its own stem with a fully connected head",
    "cnn-max-pool": "CapsNet makes fewer errors than a CNN of its size with max pooling",
    "cnn-average-pool": "CapsNet makes fewer errors than its convolutions averaged over the image",
}

#: The smallest difference that would matter to a user.
MARGIN = Margin(0.01, "one image in 100")

ONE_RATE = (
    "All models share one learning rate, which may suit some of them better than others. Repeat the comparison with "
    "other rates to see whether the answer changes."
)
OWN_RATES = (
    f"Each model has its own learning rate, one of {', '.join(f'{rate:g}' for rate in sorted(RATES))}. To choose it, "
    "the model is trained once with each rate on four fifths of the training images, and the rate with the fewest "
    "errors on the last fifth is taken. Then the model is trained on all training images."
)


def compare(
    dataset: Dataset,
    options: Options,
    watch: Watch | None = None,
    learning_rate: float | None = None,
    models: Sequence[str] = (),
    **changes: Any,
) -> Group:
    """Train CapsNet and its controls with every seed, and record each run.

    Calling it again resumes a stopped comparison. PLAN-<scale>.json keeps the options, a fingerprint of the images
    and the chosen learning rates, so that results of other images or options are never mixed.

    Args:
        dataset: data to train and test on.
        options: scale, seeds, folders and so on. All files are in compare-NAME under `options.out`, where NAME is
            `short_name(dataset.name)`; trainings are in runs/<scale> there, and `options.work` is not used. With
            resume=False the files of this scale are deleted first.
        watch: receiver of progress reports.
        learning_rate: learning rate of all models. None: each model gets its own, chosen by `tuned`; for data that
            are neither `Examples` nor `Pairs`, all get the scale's rate.
        models: further architectures, by name in `capsnet.models.MODELS`, with their default sizes.
        changes: fields of the `TrainConfig` that all models share, for example image_size.

    Returns:
        The records, for `page.write_comparison`, `verdicts.judgements` and `answer`.

    Raises:
        CapsnetError: the network does not fit the images, the folder has results of other images or options, cannot
            be written or lies among the images, or one of the reasons of `run_experiment`.
        StoppedExperiment: a signal stopped it.
    """
    if learning_rate is not None:
        changes["learning_rate"] = learning_rate
    pixels = fingerprint(dataset)
    models = [name for name in models if name != "capsnet"]
    experiment = comparison(dataset, pixels, models=models, **changes)
    folder = options.out / experiment.name
    variants = chosen_variants(experiment, options)
    pick_device(options.device)
    _refuse_among_images(folder, dataset)
    check_writable(folder)
    if not options.resume:
        _forget(folder, options.scale)
    options = replace(options, work=folder / "runs" / options.scale)
    asked = {
        "pixels": pixels,
        "steps": options.steps,
        "precision": options.precision,
        "learning_rate": learning_rate,
        "image_size": changes.get("image_size"),
        **({"models": models} if models else {}),
    }
    plan = folder / f"PLAN-{options.scale}.json"
    if plan.exists():
        _refuse_other(plan, asked)
        rates = read_json(plan).get("rates")
    else:
        rates = None
        if learning_rate is None and isinstance(dataset.train, Examples | Pairs):
            chosen = tuned(variants, dataset, options, watch or Unwatched())
            rates = {variant.name: variant.training.learning_rate for variant in chosen}
        write_json(plan, {"asked": asked, "rates": rates})
    experiment = comparison(dataset, pixels, rates, models, **changes)
    try:
        records = run_experiment(experiment, options, watch)
    except NotFinite as error:
        raise NotFinite(
            f"{error.args[0].partition(';')[0]}; compare all models at a smaller --learning-rate, in another --out"
        ) from error
    return Group(experiment, options.scale, records)


def _refuse_among_images(folder: Path, dataset: Dataset) -> None:
    """Refuse a results folder among the images: it would be read as a class."""
    if dataset.name.startswith("folder:"):
        images = Path(dataset.name.removeprefix("folder:")).resolve()
        if folder.resolve().is_relative_to(images):
            raise CapsnetError(
                f"{shown(folder)} lies among the images of {shown(images)}; choose another --out"
            )


def _forget(folder: Path, scale: Scale) -> None:
    for file in (*folder.glob(f"*-{scale}-s*.json"), folder / f"PLAN-{scale}.json"):
        file.unlink(missing_ok=True)
    for run in (folder / "runs" / scale).glob("*"):
        Run(run).clear()


def _refuse_other(plan: Path, asked: Mapping[str, Any]) -> None:
    before = read_json(plan).get("asked")
    if before == asked:
        return
    names = {"pixels": "images", "learning_rate": "--learning-rate", "image_size": "--image-size"}
    before = before if isinstance(before, dict) else {}
    other = [
        names.get(key, f"--{key}")
        for key in dict.fromkeys((*asked, *before))
        if before.get(key) != asked.get(key)
    ]
    raise CapsnetError(
        f"{shown(plan.parent)} holds a comparison with other {_listed(other)}; choose another --out, or replace it "
        "with --no-resume"
    )


def comparison(
    dataset: Dataset,
    pixels: str | None,
    rates: Mapping[str, float] | None = None,
    models: Sequence[str] = (),
    **changes: Any,
) -> Experiment:
    """Return the recipe: CapsNet, its three controls, and a claim against each.

    Args:
        dataset: data to train and test on.
        pixels: fingerprint of the data, from `fingerprint`.
        rates: learning rate of each variant, by name, chosen by `tuned`. None: the same for all.
        models: further architectures; each gets a claim against CapsNet.
        changes: fields of the `TrainConfig` that all models share.
    """
    present = dataset.classes_present
    others = {name: MODELS.get(name).config_class.for_dataset(dataset) for name in models}
    changes.setdefault("schedule", "one-cycle")

    def variants(scale: Scale) -> Sequence[Variant]:
        plan = training(scale, dataset.name, STEPS, **changes)
        fields = {"image_shape": dataset.image_shape, "num_classes": len(dataset.class_names)}
        like = capsnet(scale, **fields, **({"decoder": None} if dataset.is_multi_label else {}))
        without = "no" if dataset.is_multi_label else "with"
        ours = Variant("r3", f"CapsNet, 3 routing iterations, {without} reconstruction", like, plan)
        theirs = [
            *(Variant(name, f"{name}, default sizes", config, plan) for name, config in others.items()),
            *controls(like, plan, "sigmoid" if present > 1 else "softmax"),
        ]
        alike = [replace(variant, pixels=pixels) for variant in (ours, *theirs)]
        return [_at_own_rate(variant, (rates or {}).get(variant.name)) for variant in alike]

    name = COMPARISON + short_name(dataset.name)
    error = "test error" if present == 1 else "error: not all of an image's classes found"
    return Experiment(
        name=name,
        number=0,
        title=f"Do capsules help on {shown(dataset.name)}?",
        source="None: this comparison is not from the paper",
        protocol=(
            "CapsNet and three controls have the same kernels and are trained on the same data, for the same number of "
            "steps, with the same batches and shifts. All are tested on the same images, which are used neither for "
            "training nor for choosing a learning rate. " + (ONE_RATE if rates is None else OWN_RATES)
        ),
        deviations={
            "smoke": ("a few steps; the numbers mean nothing",),
            "quick": ("32 of 256 stem channels, 8 of 32 capsule types, one-cycle learning rate",),
            "full": ("one-cycle learning rate",),
        },
        cost={"quick": "minutes for each model on 2 cores", "full": "the published network; a GPU"},
        seeds={"smoke": 1, "quick": SEEDS, "full": SEEDS},
        variants=variants,
        measures=(Measure("test", error),),
        claims=(
            *(Claim(text, "test", "r3", control, MARGIN) for control, text in CONTROLS.items()),
            *(
                Claim(f"{name} makes fewer errors than CapsNet", "test", name, "r3", MARGIN)
                for name in models
            ),
        ),
        load=lambda *_: dataset,
        own_rates=False,
        figures=lambda records: [dots(name, records, "test", f"{error}, %")],
    )


def _at_own_rate(variant: Variant, rate: float | None) -> Variant:
    if rate is None:
        return variant
    return replace(with_rate(variant, rate), about=f"{variant.about}; learning rate {rate:g}, chosen for it")


def answer(found: Sequence[Judgement]) -> str:
    """Answer in one sentence whether capsules help, as far as these runs show.

    Args:
        found: the comparison's `judgements`.
    """
    found = [judgement for judgement in found if judgement.claim.against in CONTROLS]
    if len(found) < len(CONTROLS):
        return "No answer: not all models have been trained."
    better, worse, alike, open_ = (
        [judgement.claim.against for judgement in found if judgement.word.startswith(word)]
        for word in ("supported", "contradicted", "equivalent", "undecided")
    )
    several = found[0].difference.seeds > 1
    told = "over seeds and test images" if several else "in this one run; other seeds may differ"
    if worse:
        makes = "makes" if len(worse) == 1 else "make"
        return f"No: {_listed(worse)} {makes} fewer errors than CapsNet, beyond chance {told}."
    if not alike and not open_:
        return f"Yes: CapsNet makes fewer errors than each of its controls, beyond chance {told}."
    matters = f"{100 * MARGIN.size:g} point"
    if not better and not open_:
        return f"No difference that matters: CapsNet's error is within {matters} of each control's, {told}."
    more = f"more {'' if several else '--'}seeds or test images may tell"
    parts = [
        f"fewer errors than {_listed(better)}" if better else "",
        f"within {matters} of {_listed(alike)}" if alike else "",
        f"undecided against {_listed(open_)}; {more}" if open_ else "",
    ]
    if better or alike:
        return f"In part: {', '.join(filter(None, parts))}."
    return f"Undecided: no difference from {_listed(open_)} is beyond chance; {more}."


def fingerprint(dataset: Dataset) -> str | None:
    """Return the first 12 digits of the SHA-256 of the pixels and labels of own data.

    None for data sets whose name determines their content, and for sources that do not hold their images.
    """
    if dataset.name in DATASETS.names():
        return None
    digest = hashlib.sha256()
    for half in (dataset.train, dataset.test):
        if not isinstance(half, Examples | MultiLabel):
            return None
        digest.update(half.images.numpy().data)
        digest.update((half.labels if isinstance(half, Examples) else half.present).numpy().data)
    return digest.hexdigest()[:12]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def as_dict(compared: Group) -> dict[str, Any]:
    """Return a comparison for JSON: errors, verdicts and the answer."""
    found = judgements(compared)
    return {
        "data": compared.records[0].data,
        "provenance": compared.records[0].provenance,
        "scale": compared.scale,
        "models": [_model(name, runs) for name, runs in by_variant(compared.records).items()],
        "verdicts": [
            {
                "claim": judgement.claim.text,
                "against": judgement.claim.against,
                "difference": judgement.difference.mean,
                "interval_95": [judgement.difference.low, judgement.difference.high],
                "interval_90": [judgement.difference.low_90, judgement.difference.high_90],
                "margin": judgement.claim.margin.size,
                "over": over(judgement.difference, judgement.shows),
                "p": judgement.p,
                "p_holm": judgement.corrected,
                "verdict": judgement.word,
            }
            for judgement in found
        ],
        "answer": answer(found),
    }


def _model(name: str, runs: Sequence[Record]) -> dict[str, Any]:
    found = estimate(runs, "test")
    assert found is not None
    return {
        "name": name,
        "about": runs[0].about,
        "control": runs[0].control,
        "parameters": runs[0].parameters,
        "multiply_adds": runs[0].multiply_adds,
        "steps": runs[0].steps,
        "learning_rate": runs[0].training["learning_rate"],
        "n": runs[0].tests["test"].n,
        "test_errors": [run.tests["test"].error for run in runs],
        "mean": found.mean,
        "interval_95": [found.low, found.high],
    }
