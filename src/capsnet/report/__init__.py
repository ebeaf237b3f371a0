"""A finished run → figures and one HTML page that explains what was learned.

material.py   what a report is made of, and which examples to show
story.py      the sections and their sentences
curves.py     loss, test error, speed
predictions.py  confusions, examples beside reconstructions, lengths
capsules.py   dimensions and couplings
style.py      one look for all figures
page.py       sections → HTML
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from capsnet.data.dataset import Dataset
    from capsnet.inference.evaluation import Evaluation
    from capsnet.models.base import Classifier

__all__ = ["write_report"]


@torch.no_grad()
def write_report(
    run_folder: Path, dataset: Dataset, model: Classifier, evaluation: Evaluation | None = None
) -> Path:
    """Write report/index.html and its figures, report/*.png, into a finished run's folder.

    The page holds everything it needs. Figures that a model cannot give (no capsules, no decoder, no metrics)
    are left out, with a sentence instead.

    Args:
        run_folder: a run with its result.json.
        dataset: what it was trained on.
        model: the run's model, on whichever device; its training mode is put back afterwards.
        evaluation: the model on the data set's test set, if that has been measured; saves a pass over it.

    Returns:
        The path of index.html.

    Raises:
        CapsnetError: no run there, an unfinished or damaged one, data of another shape, or the folder cannot
            be written.
    """
    from capsnet._support.files import write_atomically, write_text
    from capsnet._support.version import __version__
    from capsnet.report.material import Material
    from capsnet.report.page import render
    from capsnet.report.story import sections

    was_training = model.training
    model.eval()
    try:
        material = Material.of(Path(run_folder), dataset, model, evaluation)
        told = sections(material)
    finally:
        model.train(was_training)
    folder = Path(run_folder) / "report"
    for picture in (picture for section in told for picture in section.pictures):

        def write(path: Path, content: bytes = picture.png) -> None:
            path.write_bytes(content)

        write_atomically(folder / f"{picture.name}.png", write)
    page = render(
        f"{model.architecture} on {dataset.name}",
        f"Test error {material.evaluation}",
        told,
        f"Made by capsnet {__version__}. Figures are beside this page as PNG files.",
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"
