"""Draw confusions, examples with reconstructions, and capsule lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from capsnet.explain.segment import Segmentation, segment
from capsnet.inference.evaluation import flags_of
from capsnet.models.protocols import Decodes
from capsnet.report.material import Material
from capsnet.report.style import (
    BLUE,
    FAINT,
    FONT,
    INK,
    MUTED,
    RED,
    SMALL,
    Picture,
    bare,
    new_figure,
    pixels,
    plain,
    png,
    show,
    text_font,
)

#: Largest number of classes in the confusion matrix: those with the most errors.
MATRIX_CLASSES = 20
#: Examples in a row, for short and for long class names.
COLUMNS, COLUMNS_OF_LONG = 8, 5
#: Colours of two overlapping digits; their sum is nearly white.
FIRST, SECOND = np.array([1.0, 0.55, 0.1]), np.array([0.1, 0.55, 1.0])


def confusions(material: Material) -> NDArray[np.int64]:
    """Return the confusion matrix: how often true class i was predicted as class j.

    If an example has several classes, each class found is counted on the diagonal. The missed classes are
    paired, in order, with the wrongly predicted ones.
    """
    from sklearn.metrics import confusion_matrix

    true, said = _paired(material.evaluation.labels, material.evaluation.predictions)
    matrix: NDArray[np.int64] = confusion_matrix(true, said, labels=range(len(material.names)))
    return matrix


def _paired(labels: Int[Tensor, "n count"], answers: Int[Tensor, "n count"]) -> tuple[list[int], list[int]]:
    true: list[int] = []
    said: list[int] = []
    for want, have in zip(labels.tolist(), answers.tolist(), strict=True):
        found = [number for number in want if number in have]
        true += found + [number for number in want if number not in have]
        said += found + [number for number in have if number not in want]
    return true, said


def per_class(material: Material) -> list[tuple[str, ...]]:
    """Return a table: how often each class is there, and how well it is found."""
    from sklearn.metrics import roc_auc_score

    evaluation, tally = material.evaluation, material.evaluation.tally
    there = flags_of(evaluation.labels, len(material.names))
    rows: list[tuple[str, ...]] = [("class", "examples", "recall", "specificity", "AUC")]
    for number, name in enumerate(material.dataset.class_names):
        both_kinds = 0 < int(tally.there[number]) < tally.n
        area = roc_auc_score(there[:, number], evaluation.scores[:, number]) if both_kinds else float("nan")
        shares = (tally.recall[number], tally.specificity[number])
        rows.append(
            (name, f"{int(tally.there[number]):,}", *(f"{share:.1%}" for share in shares), f"{area:.3f}")
        )
    return rows


def columns(material: Material) -> int:
    """Return how many examples fit in a row with their class names."""
    return COLUMNS if max(map(len, material.names)) <= 3 else COLUMNS_OF_LONG


def confusion_picture(material: Material, matrix: NDArray[np.int64]) -> Picture:
    """Draw the confusion matrix as a heat map with a pale diagonal."""
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    chosen = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
    part = matrix[np.ix_(chosen, chosen)]
    names = [material.names[number] for number in chosen]
    mistakes = part.astype(float)
    np.fill_diagonal(mistakes, np.nan)
    side = max(3.6, 0.36 * len(names) + 1.6)
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    most = max(1.0, float(np.nanmax(mistakes, initial=0.0)))
    axes.imshow(mistakes, cmap="Blues", vmin=0, vmax=most)
    plain(axes, "", "predicted class", "true class")
    upright = max(map(len, names)) <= 2
    axes.set_xticks(range(len(names)), names, rotation=0 if upright else 90, **text_font())
    axes.set_yticks(range(len(names)), names, **text_font())
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for (row, column), count in np.ndenumerate(part):
        if count:
            dark = row != column and count > 0.55 * most
            colour = "white" if dark else (MUTED if row == column else INK)
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color=colour,
                fontsize=SMALL if count < 1000 else SMALL - 1.5,
                fontfamily=FONT,
            )
    some = f" the {len(chosen)} classes with the most mistakes," if len(chosen) < len(matrix) else ""
    return Picture(
        "confusion",
        png(figure),
        f"Confusion matrix of{some or ' all classes,'} {material.evaluation.errors} errors in total.",
        f"Rows are true classes, columns are predicted classes{';' + some.rstrip(',') if some else ''}. "
        "Coloured cells are mistakes.",
        wide=len(chosen) > 12,
    )


def commonest(material: Material, matrix: NDArray[np.int64], count: int = 8) -> list[tuple[str, str, str]]:
    """Return (true class, predicted class, count) of the most frequent mistakes."""
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = [divmod(int(place), len(matrix)) for place in order if mistakes.flat[place]]
    names = material.dataset.class_names
    return [(names[true], names[said], str(mistakes[true, said])) for true, said in pairs]


def examples(material: Material, chosen: list[int], name: str) -> Picture:
    """Draw inputs with predictions and, below them, reconstructions if possible."""
    batch = material.batch(chosen)
    inputs = material.pictures(batch)
    wrong = bool(material.evaluation.wrong[chosen].any())
    rows: list[tuple[str, list[NDArray[Any]]]] = [("input", [pixels(image) for image in inputs])]
    if (model := material.decoding) is not None:
        rows += _drawn(model, batch.images, batch.labels, batch.originals, wrong)
    across = columns(material)
    aspect = material.dataset.image_shape[1] / material.dataset.image_shape[2]
    figure = new_figure(8.6, (7.76 / across * aspect + 0.05) * len(rows) + (0.4 if wrong else 0.24))
    grid = np.asarray(figure.subplots(len(rows), across, squeeze=False))
    for row, (about, images) in enumerate(rows):
        for column in range(across):
            axes = grid[row, column]
            bare(axes)
            if column < len(images):
                show(axes, images[column])
                if row == 0:
                    bare(axes, _verdict(material, chosen[column], wrong), RED if wrong else INK)
        grid[row, 0].set_ylabel(about, **text_font())
    what = "wrongly" if wrong else "correctly"
    return Picture(
        name,
        png(figure),
        f"{len(chosen)} test images that are {what} classified"
        + (", with the drawings of their capsules." if model is not None else "."),
        wide=True,
    )


def _verdict(material: Material, index: int, wrong: bool) -> str:
    evaluation = material.evaluation
    scores, labels, said = evaluation.scores[index], evaluation.labels[index], evaluation.predictions[index]

    def text(numbers: Tensor) -> str:
        strengths = " + ".join(f"{float(scores[number]):.2f}" for number in numbers)
        return f"{material.named(numbers)} ({strengths})" if len(numbers) == 1 else material.named(numbers)

    return f"true {text(labels)}\npred. {text(said)}" if wrong else text(labels)


def _drawn(
    model: Decodes, images: Tensor, labels: Tensor, originals: Tensor, wrong: bool
) -> list[tuple[str, list[NDArray[Any]]]]:
    count = labels.shape[1]
    answer = segment(model, images, count)
    if count == 1:
        drawn = [pixels(image) for image in answer.drawings[:, 0]]
        if not wrong:
            return [("drawn", drawn)]
        truth = model.decode(model.class_poses(images), labels[:, 0])
        return [("drawn as\ntrue class", [pixels(image) for image in truth]), ("drawn as\npredicted", drawn)]
    order = _as_labelled(answer, labels)
    drawings = torch.stack([part[row] for part, row in zip(answer.drawings, order, strict=True)])
    return [
        ("the two\ndigits", [overlay(pair) for pair in originals]),
        ("drawn by\ntwo capsules", [overlay(pair) for pair in drawings]),
    ]


def _as_labelled(answer: Segmentation, labels: Tensor) -> list[list[int]]:
    """Return the order of each image's predictions that matches its true labels.

    A correct prediction gets the place, and so the colour, of its true digit.
    """
    orders = []
    for said, want in zip(answer.classes.tolist(), labels.tolist(), strict=True):
        free = [place for place, number in enumerate(said) if number not in want]
        orders.append([said.index(number) if number in said else free.pop(0) for number in want])
    return orders


def overlay(images: Float[Tensor, "count channels height width"]) -> NDArray[np.float32]:
    """Overlay two images, in orange and in blue: (height, width, 3)."""
    first, second = (image.mean(dim=0).detach().float().cpu().numpy()[..., None] for image in images[:2])
    mixed: NDArray[np.float32] = np.clip(first * FIRST + second * SECOND, 0, 1).astype(np.float32)
    return mixed


def lengths_picture(material: Material, chosen: list[int]) -> Picture:
    """Draw the lengths of the class capsules, or their activations, for a few images."""
    margins = "Dashed: the margins 0.1 and 0.9 of the loss" if material.measure == "length" else ""
    pictures = material.pictures(material.batch(chosen))
    in_row = 3 if columns(material) == COLUMNS else 2
    rows = -(-len(chosen) // in_row)
    shown = min(len(material.names), 10)
    figure = new_figure(8.6, rows * (0.18 * shown + 0.75))
    cells = figure.add_gridspec(rows, 2 * in_row, width_ratios=[1, 1.6] * in_row)
    for place, index in enumerate(chosen):
        row, column = divmod(place, in_row)
        left = figure.add_subplot(cells[row, 2 * column])
        show(left, pixels(pictures[place]))
        bare(left, below=f"true: {material.named(material.evaluation.labels[index])}")
        _bars(material, figure.add_subplot(cells[row, 2 * column + 1]), index, shown)
    return Picture(
        "lengths",
        png(figure),
        f"{material.measure.capitalize()}s of the class capsules for {len(chosen)} test images.",
        ". ".join(
            part
            for part in (
                "Blue: the true class. Orange-red: a wrong prediction",
                margins,
                ""
                if shown == len(material.names)
                else "Only the true class and the highest scores are shown",
            )
            if part
        )
        + ".",
        wide=True,
    )


def _bars(material: Material, axes: Any, index: int, shown: int) -> None:
    evaluation = material.evaluation
    scores = evaluation.scores[index].nan_to_num(0.0)
    true, said = (
        [number for number in numbers[index].tolist() if number >= 0]
        for numbers in (evaluation.labels, evaluation.predictions)
    )
    first = scores.clone()
    first[true] += 2  # so that the true class is always shown
    classes = first.topk(shown).indices.sort().values.tolist()
    colours = [BLUE if number in true else RED if number in said else "#b6bfc8" for number in classes]
    axes.barh(range(shown), scores[classes].tolist(), color=colours, height=0.72)
    for margin in (0.1, 0.9) if material.measure == "length" else ():
        axes.axvline(margin, color=MUTED, linewidth=0.7, linestyle=(0, (3, 3)))
    plain(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(shown - 0.4, -0.6)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], **text_font())
    axes.set_yticks(range(shown), [material.names[number] for number in classes], **text_font())
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(FAINT)
