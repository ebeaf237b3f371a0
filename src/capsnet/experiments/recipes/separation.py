"""Draw the paper's figure 5: overlapping digits and each capsule's drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from capsnet.data.dataset import Source
from capsnet.experiments.record import Record
from capsnet.explain.segment import Segmentation
from capsnet.inference.evaluation import Evaluation
from capsnet.models.protocols import Decodes
from capsnet.report.style import Picture, bare, new_figure, png

#: Columns of the figure: correctly classified pairs, and wrongly classified pairs.
RIGHT, WRONG = 6, 3
#: Colours of the two digits, red and green; overlap is yellow. The figure also shows each drawing alone.
FIRST, SECOND = np.array([1.0, 0.25, 0.2]), np.array([0.2, 0.85, 0.35])


@torch.no_grad()
def separated(model: Decodes, test: Source, evaluation: Evaluation) -> dict[str, NDArray[Any]]:
    """Return the first correct and wrong pairs with their drawings, as 8-bit arrays.

    Returns:
        inputs (n, height, width); originals (n, 2, …); labels (n, 2) and answers (n, 2);
        drawings (n, 2, …) of the answers; true_drawings (n, 2, …) of the true digits;
        absent (n,), a class that is neither a true digit nor an answer, and absent_drawings (n, …).
    """
    wrong = evaluation.wrong
    chosen = torch.cat([(~wrong).nonzero()[:RIGHT, 0], wrong.nonzero()[:WRONG, 0]])
    device = next(model.parameters()).device
    batch = test.to(device).batch(chosen.to(device))
    capsules = model.class_poses(batch.images)
    answers = evaluation.predictions[chosen].to(device)
    neither = torch.ones(len(chosen), model.config.num_classes, device=device)
    neither.scatter_(1, torch.cat((answers, batch.labels), dim=1), 0)
    absent = neither.argmax(dim=1)
    return {
        "inputs": _bytes(batch.images[:, 0]),
        "originals": _bytes(batch.originals[:, :, 0]),
        "labels": batch.labels.cpu().numpy().astype(np.uint8),
        "answers": answers.cpu().numpy().astype(np.uint8),
        "drawings": _bytes(_each(model, capsules, answers)),
        "true_drawings": _bytes(_each(model, capsules, batch.labels)),
        "absent": absent.cpu().numpy().astype(np.uint8),
        "absent_drawings": _bytes(model.decode(capsules, absent)[:, 0]),
    }


def separation_figure(name: str, record: Record) -> Picture:
    """Draw one column per pair: the input, and the drawings of several capsules.

    The rows are the input, both answers in two colours, each answer alone, the assigned pixels of the input, the
    true digits, and a class that is absent.
    """
    inputs, labels, answers = record.array("inputs"), record.array("labels"), record.array("answers")
    drawings = record.array("drawings")
    absent, absent_drawings = record.array("absent"), record.array("absent_drawings")
    nothing = [""] * len(inputs)
    order = like_answers(labels, answers)
    true, true_drawings = (
        np.stack([rows[places] for rows, places in zip(found, order, strict=True)]) if len(found) else found
        for found in (labels, record.array("true_drawings"))
    )
    rows: list[tuple[str, list[NDArray[Any]], list[str]]] = [
        ("input", list(inputs), [f"{a} and {b}" for a, b in labels]),
        ("both answers", [coloured(pair) for pair in drawings], [f"answer {a}, {b}" for a, b in answers]),
        ("first answer", list(drawings[:, 0]), [str(a) for a, _ in answers]),
        ("second answer", list(drawings[:, 1]), [str(b) for _, b in answers]),
        (
            "assigned pixels",
            [shared_out(image, pair) for image, pair in zip(inputs, drawings, strict=True)],
            nothing,
        ),
        ("true digits", [coloured(pair) for pair in true_drawings], [f"{a}, {b}" for a, b in true]),
        ("absent class", list(absent_drawings), [f"as {a}" for a in absent]),
    ]
    columns = max(1, len(inputs))
    figure = new_figure(0.95 * columns + 1.0, 1.15 * len(rows))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes_row, (title, images, below) in zip(grid, rows, strict=True):
        for column, axes in enumerate(axes_row):
            bare(axes)
            if column < len(images):
                axes.imshow(images[column], cmap="gray", vmin=0, vmax=255)
                is_wrong = sorted(labels[column]) != sorted(answers[column])
                bare(axes, below=below[column] + (" ✗" if is_wrong and title == "both answers" else ""))
        axes_row[0].set_ylabel(title, fontsize=8, rotation=0, ha="right", va="center")
    pairs = ", ".join(f"{a} and {b}: answer {c}, {d}" for (a, b), (c, d) in zip(labels, answers, strict=True))
    return Picture(
        name,
        png(figure),
        f"Overlapping digits and the drawings of several capsules. {pairs}",
        f"The first {RIGHT} test pairs that {record.variant} classifies correctly and the first {WRONG} that it "
        "classifies wrongly (✗). Both answers: the two capsules decoded alone, one in red and one in green. Assigned "
        "pixels: the input's bright pixels in the colour of the capsule that draws them brightest, yellow for both. "
        "True digits: the capsules of the true classes; a digit that was found has its answer's colour. Absent class: "
        "a capsule whose class is neither a true digit nor an answer.",
        wide=True,
    )


def like_answers(labels: NDArray[np.uint8], answers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the order of each pair of labels that matches its answers."""
    crossed = (labels == answers[:, ::-1]).any(axis=1)
    return np.where(crossed[:, None], [1, 0], [0, 1])


def coloured(pair: NDArray[Any]) -> NDArray[np.uint8]:
    """Combine two grey drawings (2, height, width) into one in two colours."""
    light = pair.astype(np.float64)[..., None] / 255
    both = light[0] * FIRST + light[1] * SECOND
    result: NDArray[np.uint8] = (255 * both.clip(0, 1)).round().astype(np.uint8)
    return result


def shared_out(image: NDArray[np.uint8], pair: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour the image's bright pixels by the drawing that they belong to."""
    unused = torch.zeros(1, 2)
    light, drawings = (torch.from_numpy(array.astype(np.float32) / 255)[None] for array in (image, pair))
    masks = Segmentation(light[:, None], unused.long(), unused, drawings[:, :, None]).masks()[0].numpy()
    colours = masks[0, ..., None] * FIRST + masks[1, ..., None] * SECOND
    taken = masks[0] | masks[1]
    shown = image[..., None] * np.where(taken[..., None], colours, 0.4)
    result: NDArray[np.uint8] = shown.clip(0, 255).round().astype(np.uint8)
    return result


def _each(
    model: Decodes, capsules: Float[Tensor, "n classes dim"], classes: Int[Tensor, "n count"]
) -> Float[Tensor, "n count height width"]:
    return torch.stack([model.decode(capsules, column)[:, 0] for column in classes.T], dim=1)


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = (images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return result
