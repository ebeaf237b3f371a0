"""The page's questions as tensor programs: against the library's own functions, and in ONNX Runtime."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

from capsnet.data import Dataset, Examples
from capsnet.data.images import read_image
from capsnet.explorer import schemas as s
from capsnet.explorer.programs.geometry import main_directions
from capsnet.explorer.programs.picture import Picture, light_on_dark
from capsnet.explorer.programs.program import form_of, response
from capsnet.explorer.session import Session, places
from capsnet.explorer.site.exported import export_program, largest_difference
from capsnet.explorer.site.weights import WeightStore


def test_main_directions_are_the_eigenvectors() -> None:
    """Of a tall and of a wide matrix whose singular values differ; in batches too."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((40, 6), (5, 30)):
        left, _ = torch.linalg.qr(torch.randn(3, shape[0], 5, generator=generator))
        right, _ = torch.linalg.qr(torch.randn(3, shape[1], 5, generator=generator))
        vectors = left * torch.tensor([5.0, 4.0, 3.0, 1.0, 0.5]) @ right.mT
        expected = right[..., :2] * torch.where(right[..., :2].sum(dim=1, keepdim=True) < 0, -1, 1)
        torch.testing.assert_close(main_directions(vectors), expected, atol=1e-4, rtol=0)


def test_main_directions_of_nothing_are_finite() -> None:
    assert main_directions(torch.zeros(4, 3)).isfinite().all()
    one = torch.outer(torch.arange(4.0), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(one @ main_directions(one)[:, 0], torch.arange(4.0))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 36)])
@pytest.mark.parametrize("size", [(28, 28), (90, 41), (13, 200)])
def test_a_picture_is_read_as_a_training_image(
    tmp_path: Path, shape: tuple[int, int, int], size: tuple[int, int]
) -> None:
    """Pillow rounds to whole grey levels after each direction; the order depends on the sizes."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    rgba = torch.from_numpy(np.dstack([pixels, np.full(size[::-1], 255, np.uint8)]))
    expected = light_on_dark(read_image(tmp_path / "picture.png", shape).float() / 255)
    found = Picture(shape)(rgba)["image"]
    assert (found - expected).abs().max() <= 1.01 / 255


def test_transparent_pixels_are_paper() -> None:
    ink = torch.zeros(20, 20, 4, dtype=torch.uint8)
    ink[8:12, 8:12, 3] = 255  # black where it is opaque, nothing elsewhere
    image = Picture((1, 20, 20))(ink)["image"][0]
    assert image[9, 9] == 1
    assert image[0, 0] == 0


def test_a_picture_stays_as_it_is_for_models_of_dark_ink_or_photographs() -> None:
    paper = torch.full((20, 20, 4), 255, dtype=torch.uint8)
    assert Picture((1, 20, 20), inverts=False)(paper)["image"].min() == 1
    assert Picture((1, 20, 20))(paper)["image"].max() == 0


def test_examples_of_own_images_are_of_every_class() -> None:
    labels = torch.arange(3).repeat_interleave(220)  # a folder is sorted by class
    source = Examples(torch.zeros(660, 1, 2, 2, dtype=torch.uint8), labels)
    mine = Dataset("folder:mine", source, source, ("a", "b", "c"), (1, 2, 2), "Made up.")
    assert labels[places(mine, 200)].bincount().tolist() == [67, 66, 67]
    assert places(replace(mine, name="mnist"), 3).tolist() == [0, 1, 2]


def test_a_response_is_filled_by_its_schema() -> None:
    assert form_of(s.AblationResponse) == {
        "rows": [dict.fromkeys(("iterations", "lengths", "ranking", "entropy", "moved"), "value")],
        "dead_children": "value",
    }
    rows: dict[str, Any] = {
        f"rows.{name}": torch.tensor([1, 2]) for name in ("iterations", "entropy", "moved")
    }
    rows |= {f"rows.{name}": torch.tensor([[3, 4], [5, 6]]) for name in ("lengths", "ranking")}
    answer = response(s.AblationResponse, {**rows, "dead_children": torch.tensor(0.5)})
    assert [row.ranking for row in answer.rows] == [[3, 4], [5, 6]]
    assert answer.dead_children == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode", "agents"])
def test_an_exported_program_gives_the_same_numbers(session: Session, name: str) -> None:
    """`export_program` compares with PyTorch; here on inputs of other sizes."""
    store = WeightStore("float32")
    exported = export_program(name, session, store)
    inputs = (
        {"number": torch.tensor(7), "pose": torch.linspace(-1, 1, 16)}
        if name == "decode"
        else {"estimates": torch.rand(7, 5, 2), "iterations": torch.tensor(6)}
    )
    with torch.no_grad():
        wanted = session.programs[name](**inputs)
    found = exported.run(exported.session(store.exact()), inputs)
    assert largest_difference(found, wanted) < 1e-5


def test_weights_are_stored_once() -> None:
    """Two models with the same matrix; small constants stay where they are."""
    matrix = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    store = WeightStore("float16")
    for file in ("weights", "control"):
        graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(x) for x in (matrix, matrix[0])])
        model = helper.make_model(graph)
        assert store.move_here(model, file) == ("weights",)
        large, small = model.graph.initializer
        assert {entry.key: entry.value for entry in large.external_data} == {
            "location": "weights",
            "offset": "0",
            "length": "2400",
        }
        assert not small.external_data
    assert list(store.exact()) == ["weights"]
    np.testing.assert_array_equal(store.exact()["weights"], matrix.ravel())
    np.testing.assert_array_equal(store.values()["weights"], matrix.ravel().astype(np.float16))
    planes = np.frombuffer(gzip.decompress(store.packed()["weights"]), np.uint8).reshape(2, -1)
    np.testing.assert_array_equal(planes.T.copy().view("<f2")[:, 0], store.values()["weights"])
