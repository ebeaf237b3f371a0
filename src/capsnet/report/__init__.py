"""Write a report of a finished run: figures and one HTML page that explains them.

material.py     load the run, model and test set, and select examples
story.py        the sections and their sentences
curves.py       figures of loss, test error and speed
predictions.py  figures of confusions, reconstructions and capsule lengths
certainty.py    the section on calibration, and what refusing uncertain images gains
capsules.py     figures of capsule dimensions and couplings
style.py        colours, fonts and layout shared by all figures
page.py         sections → HTML
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
    """Write report/index.html and its figures into a finished run's folder.

    The page embeds all its figures. If a figure cannot be made (no capsules, no decoder or no metrics), a
    sentence on the page says so.

    Args:
        run_folder: a run folder that contains result.json.
        dataset: the data set that the model was trained on.
        model: the run's model, on any device. Its training mode is restored afterwards.
        evaluation: the model's evaluation on the test set. If given, the test set is not evaluated again.

    Returns:
        The path of index.html.

    Raises:
        CapsnetError: the run is missing, unfinished or damaged, the data have another shape, or the folder
            cannot be written.
    """
    from capsnet._support.files import write_bytes, write_text
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
        write_bytes(folder / f"{picture.name}.png", picture.png)
    page = render(
        f"{model.architecture} on {dataset.name}",
        f"Test error {material.evaluation}",
        told,
        f"Made by capsnet {__version__}. The figures are also PNG files in the folder of this page.",
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"
