"""`capsnet evaluate` on folders of any size, and on several processes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet import CapsNet, CapsNetConfig
from capsnet.cli.models import evaluate as evaluate_command
from capsnet.data import Batch, folder
from capsnet.data.folder import load_folder
from capsnet.distributed import WorkerGroup
from capsnet.inference.evaluation import BATCH_SIZE, count_errors, evaluate
from command import Command
from ranks import launch_ranks


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in ten classes, of which more than two batches are for testing."""
    root = tmp_path_factory.mktemp("classes")
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 28, 28), np.uint8)
    for half, copies in (("train", 1), ("test", 2)):
        for label, drawn in enumerate(noise):
            (root / half / str(label)).mkdir(parents=True)
            for number in range(11 * copies):
                Image.fromarray(drawn[number % 12]).save(root / half / str(label) / f"{number:03}.png")
    assert len(list(root.glob("test/*/*"))) > 2 * BATCH_SIZE
    return root


def arguments(data: str) -> list[str]:
    return ["evaluate", "capsnet-mnist", "--data", data, "--device", "cpu", "--json"]


def test_evaluate_streams_a_folder_and_counts_as_the_library(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(CapsNet.from_pretrained("capsnet-mnist"), load_folder(pictures, 28).test)
    portions: list[int] = []

    def noted(read: Callable[..., Any]) -> Callable[..., Any]:
        def read_and_note(files: Any, *rest: Any) -> Any:
            portions.append(len(files))
            return read(files, *rest)

        return read_and_note

    monkeypatch.setattr(folder, "read_portion", noted(folder.read_portion))
    evaluate_command("capsnet-mnist", f"folder:{pictures}", None, "cpu", True)
    assert json.loads(capsys.readouterr().out) == {"data": f"folder:{pictures}", **expected.summary()}
    assert portions == [BATCH_SIZE, BATCH_SIZE, expected.n - 2 * BATCH_SIZE]


@pytest.mark.parametrize("data", ["folder", "mnist5k"])
def test_two_processes_count_the_same_errors_as_one(
    pictures: Path, data: str, tmp_path: Path, capsnet: Command
) -> None:
    name = f"folder:{pictures}" if data == "folder" else data
    one, two = capsnet(*arguments(name)), launch_ranks(tmp_path, 2, *arguments(name))
    assert [process.wait() for process in two] == [0, 0], two[0].said
    assert json.loads(two[0].said.splitlines()[-1]) == json.loads(one.out)
    assert "{" not in two[1].said


@pytest.mark.parametrize(("labels", "title"), [([3], "test error"), ([3, 5], "pair error")])
def test_pairs_are_counted_and_called_pair_error(labels: list[int], title: str) -> None:
    model = CapsNet(CapsNetConfig(stem_channels=2, primary_types=1, decoder=None))
    images = torch.rand(2, 1, 28, 28)
    batch = Batch(images, torch.tensor([labels] * 2), images[:, None].repeat(1, len(labels), 1, 1, 1))
    with WorkerGroup() as workers:
        counted = count_errors(model, iter([[Path("a"), Path("b")]]), lambda _: batch, workers)
    assert counted is not None
    assert (counted.title, counted.n) == (title, 2)


@pytest.fixture
def broken(pictures: Path) -> Iterator[Path]:
    bad = pictures / "test" / "7" / "broken.png"
    bad.write_bytes(b"no picture")
    yield bad
    bad.unlink()


def test_a_bad_image_ends_evaluate_in_one_line(pictures: Path, broken: Path, capsnet: Command) -> None:
    done = capsnet(*arguments(f"folder:{pictures}"))
    assert (done.code, done.out) == (2, "")
    assert done.err.count("error:") == 1
    assert "broken.png" in done.err


def test_one_of_several_processes_names_a_bad_image(pictures: Path, broken: Path, tmp_path: Path) -> None:
    processes = launch_ranks(tmp_path, 2, *arguments(f"folder:{pictures}"))
    assert [process.wait() for process in processes].count(2) >= 1
    said = "".join(process.said for process in processes)
    assert said.count("error:") == said.count("broken.png") == 1
