"""Measure what the dimensions of a class capsule mean (section 5.1, figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from capsnet.data.dataset import Examples
from capsnet.experiments.recipe import Claim, Experiment, Margin, Measure, Scale, Trained, Variant
from capsnet.experiments.recipes.equivariance import last_layer
from capsnet.experiments.record import Findings, Record
from capsnet.experiments.scales import DIGIT_STEPS, NARROW, capsnet, controls, training
from capsnet.experiments.statistics import Z
from capsnet.explain import MEASURES, OFFSETS, class_pose, correlations, dimension_effects, dimension_sheet
from capsnet.explain import measure as measure_digits
from capsnet.explain.perturb import CLEAR_CORRELATION
from capsnet.models.protocols import Decodes, HasPoses, decodes
from capsnet.report.style import DIVERGING, Picture, bare, mosaic, new_figure, plain, png, text_font

#: Examples per class in which a dimension is changed to measure its meaning.
TURNED = 10
#: Principal directions of a control's features within each class: as many as a capsule has dimensions.
COMPONENTS = 16
#: The smallest difference that would matter to a user.
MARGIN = Margin(0.05, "correlations closer than that look the same when drawn")


def variants(scale: Scale) -> Sequence[Variant]:
    """Return CapsNet as in `table1`, and the same stem without capsules."""
    plan = training(scale, "mnist", DIGIT_STEPS)
    same_stem, *_ = controls(capsnet(scale), plan)
    return (
        Variant("r3-reconstruction", "CapsNet, with reconstruction", capsnet(scale), plan),
        Variant("r3-no-reconstruction", "CapsNet, no reconstruction", capsnet(scale, decoder=None), plan),
        same_stem,
    )


def measure(trained: Trained) -> Findings:
    """Measure how dimensions correlate with the digit and change its drawing."""
    test, model = trained.dataset.test, trained.model
    assert isinstance(test, Examples)
    count = trained.few(2_000, 10_000)
    images, labels = test.images[:count].float() / 255, test.labels[:count]
    images, labels = images.to(trained.device), labels.to(trained.device)
    features = class_pose(model) if isinstance(model, HasPoses) else last_layer(model)
    values = features(images, labels)
    reading = readings(values, images, labels)
    halves = np.array([readings(values, images, labels, half) for half in (0, 1)])
    metrics: dict[str, float | None] = dict(
        zip(map("follows {}".format, MEASURES), strongest(halves), strict=True)
    )
    arrays: dict[str, NDArray[Any]] = {
        "readings": reading.astype(np.float32),
        "halves": halves.astype(np.float32),
        "digits": torch.bincount(labels).cpu().numpy().astype(np.int32),
    }
    if decodes(model):
        turned = 2 if trained.scale == "smoke" else TURNED
        effects, named = meanings(model, images, labels, turned)
        arrays["turned"] = effects
        metrics["named"] = named
        if trained.seed == 0:
            arrays["sheets"] = sheets(model, images, labels)
    return Findings({"test": trained.evaluation}, metrics, arrays)


def readings(
    features: Float[Tensor, "n features"],
    images: Float[Tensor, "n channels height width"],
    labels: Tensor,
    half: int | None = None,
) -> NDArray[np.float64]:
    """Return correlations of digits, (classes, dimensions, measures).

    Features with more than `COMPONENTS` dimensions are reduced to their principal directions within the class.

    Args:
        features, images, labels: features, images and classes of the digits.
        half: 0 or 1 uses every second digit of a class, starting at the first or the second. None uses all.
    """
    values = []
    for number in range(int(labels.max()) + 1):
        found = np.full((COMPONENTS, len(MEASURES)), np.nan)
        rows = labels == number
        if rows.sum() > 5:  # a correlation needs at least three in each half
            own = features[rows].double()
            if own.shape[1] > COMPONENTS:
                centred = own - own.mean(dim=0)
                own = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:COMPONENTS].T
            some = slice(half or 0, None, 1 if half is None else 2)
            found[: own.shape[1]] = correlations(own[some].cpu().numpy(), measure_digits(images[rows][some]))
        values.append(found)
    return np.array(values)


def meanings(
    model: Decodes, images: Float[Tensor, "n channels height width"], labels: Tensor, examples: int
) -> tuple[NDArray[np.float32], float]:
    """Change each dimension in several examples, and correlate it with the drawing.

    Returns:
        Correlations (classes, dim, measures), and the number of dimensions with a clear meaning, mean over classes.
    """
    effects, named = [], []
    for number in range(model.config.num_classes):
        some = images[labels == number][:examples]
        if len(some) < 2:
            continue
        with torch.no_grad():
            capsules = model.class_poses(some)
        found = dimension_effects(model, capsules, torch.full((len(some),), number))
        effects.append(found.correlation)
        named.append(sum(meaning is not None for meaning in found.meanings()))
    return np.array(effects, dtype=np.float32), float(np.mean(named)) if named else 0.0


@torch.no_grad()
def sheets(
    model: Decodes, images: Float[Tensor, "n channels height width"], labels: Tensor
) -> NDArray[np.uint8]:
    """Draw the dimension sheet of the first digit of each class, in 8 bits.

    Returns (classes, dim, offsets, height, width); black for a class without digits.
    """
    shape = (model.config.num_classes, model.config.class_dim, len(OFFSETS), *images.shape[2:])
    drawn = torch.zeros(shape, device=images.device)
    for number in set(labels.tolist()):
        first = images[labels == number][:1]
        drawn[number] = dimension_sheet(model, model.class_poses(first)[0], number)[:, :, 0]
    result: NDArray[np.uint8] = (drawn * 255).round().byte().cpu().numpy()
    return result


def figures(records: Sequence[Record]) -> list[Picture]:
    """Draw the sheet of every class, and the correlations of dimensions and measures."""
    pictures = []
    for record in records:
        if "sheets" in record.arrays:
            pictures.append(_sheet_figure(record))
            break
    read = [record for record in records if record.variant == "r3-reconstruction"]
    return [*pictures, _reading_figure(read[0])] if read else pictures


def _sheet_figure(record: Record) -> Picture:
    drawn = torch.from_numpy(record.array("sheets").copy())[:, :, :, None] / 255
    figure = new_figure(8.6, 5.6)
    panels = figure.subplots(2, 5).flatten()
    for number, panel in enumerate(panels):
        bare(panel)
        if number < len(drawn):
            canvas, _, _ = mosaic(drawn[number], gap=1)
            panel.imshow(canvas, cmap="gray", vmin=0, vmax=1)
            bare(panel, f"{number}")
    return Picture(
        "dimensions-sheets",
        png(figure),
        "Reconstructions of one digit of each class with one of its capsule's sixteen dimensions changed",
        "One digit of each class. Rows are the sixteen dimensions of its capsule; columns add −0.25 to 0.25 to one "
        "dimension. This is the paper's figure 4, for every class.",
        wide=True,
    )


def _reading_figure(record: Record) -> Picture:
    reading = np.nan_to_num(record.array("readings"))
    figure = new_figure(11.0, 4.6)
    panels = figure.subplots(2, 5, sharex=True, sharey=True).flatten()
    for number, (panel, values) in enumerate(zip(panels, reading, strict=False)):
        shown = panel.imshow(values.T, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
        panel.set_yticks(range(len(MEASURES)), MEASURES, **text_font())
        plain(panel, str(number), "dimension" if number >= 5 else "")
    figure.colorbar(shown, ax=list(panels), shrink=0.6, label="correlation")
    return Picture(
        "dimensions-readings",
        png(figure),
        "Correlation of each dimension of a digit's capsule with measures of the digit, for every class",
        f"Correlation of the capsule's dimensions (columns) with measures of the test digit (rows), {record.variant}, "
        f"seed {record.seed}.",
        wide=True,
    )


def notes(records: Sequence[Record]) -> list[str]:
    """List the dimension with the strongest correlation for each class and measure."""
    read = [
        record for record in records if record.variant == "r3-reconstruction" and "halves" in record.arrays
    ]
    if not read:
        return []
    halves, digits = read[0].array("halves"), read[0].array("digits")
    shown = [MEASURES.index(name) for name in ("thickness", "slant", "width", "height", "area")]
    lines = [
        "| digit | " + " | ".join(MEASURES[column] for column in shown) + " |",
        "|---|" + "---|" * len(shown),
    ]
    for number, (chosen_on, told_on) in enumerate(zip(*halves, strict=True)):
        chance = Z / np.sqrt(max(1, digits[number] // 2))
        cells = []
        for column in shown:
            row, value = _chosen(chosen_on[:, column], told_on[:, column])
            cells.append(f"{row} ({value:+.2f})" if abs(value) > chance else "–")
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return [
        "The dimension with the strongest correlation with each measure on one half of the test digits, and its "
        f"correlation on the other half ({read[0].variant}, seed {read[0].seed}). A dash means that this correlation "
        "may be chance (95 % of random correlations are this small):",
        "\n".join(lines),
    ]


def _chosen(chosen_on: NDArray[Any], told_on: NDArray[Any]) -> tuple[int, float]:
    """Return the dimension with the strongest r in one half, and its r in the other."""
    row = int(np.nan_to_num(np.abs(chosen_on)).argmax())
    return row, float(np.nan_to_num(told_on[row]))


def strongest(halves: NDArray[np.float64]) -> list[float]:
    """Return the cross-fitted correlation of each measure, mean over classes.

    The dimension is chosen on one half and its |r| reported on the other. Without this split, the best of sixteen
    dimensions would have |r| = 0.15 by chance.
    """
    found = [
        [
            abs(_chosen(chosen_on[number, :, column], told_on[number, :, column])[1])
            for chosen_on, told_on in (halves, halves[::-1])
            for number in range(halves.shape[1])
        ]
        for column in range(halves.shape[3])
    ]
    return [float(np.mean(values)) for values in found]


EXPERIMENT = Experiment(
    name="dimensions",
    number=7,
    title="What the sixteen dimensions mean",
    source="Figure 4: one dimension changed at a time; no number reported",
    protocol=(
        "CapsNet is trained as in `table1`. For each measure of the digit (thickness, slant, width, …), the dimension "
        "with the strongest correlation is chosen on one half of a class's test digits, and its |r| is reported on the "
        "other half; the value is the mean over both ways and over the classes. Capsules are read dimension by "
        f"dimension. The control is read in the first {COMPONENTS} principal directions, within each class, of a CNN's "
        "last layer. In addition, each dimension of the class capsule is changed from −0.25 to 0.25 in steps of 0.05 "
        "and decoded. A dimension changes the drawing clearly if it changes a measure of the drawing with "
        f"|r| ≥ {CLEAR_CORRELATION} in {TURNED} examples."
    ),
    deviations={
        "quick": (*NARROW, "batches of 32", "measured on 2,000 test digits"),
        "full": ("the measures and the control are ours; the paper shows only examples",),
    },
    cost={"quick": "minutes after table1, because it reuses its trainings", "full": "minutes after table1"},
    margins_commit="0f69141",
    seeds={"smoke": 1, "quick": 8, "full": 3},
    variants=variants,
    measures=(
        *(
            Measure(f"follows {name}", f"best |r| with {name}", percent=False, better="higher")
            for name in ("thickness", "slant", "width")
        ),
        Measure(
            "named", "dimensions that change the drawing clearly, of 16", percent=False, better=None, digits=1
        ),
        Measure("test", "test error", better=None),
    ),
    claims=tuple(
        claim
        for name in ("thickness", "slant", "width")
        for claim in (
            Claim(
                f"One dimension of a capsule correlates with {name} more than one of a CNN's principal directions",
                f"follows {name}",
                "r3-reconstruction",
                "cnn-same-stem",
                MARGIN,
            ),
            Claim(
                f"Reconstruction increases the correlation of one dimension with {name}",
                f"follows {name}",
                "r3-reconstruction",
                "r3-no-reconstruction",
                MARGIN,
            ),
        )
    ),
    measure=measure,
    notes=notes,
    figures=figures,
)
