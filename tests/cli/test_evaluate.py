"""`capsnet evaluate` on folders of any size, and on several processes."""

import json
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in ten classes, of which more than two batches are for testing."""
    root = tmp_path_factory.mktemp("classes")
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 28, 28), np.uint8)
    for half, copies in (("train", 1), ("test", 2)):
        for label, drawn in enumerate(noise):
            (root / half / str(label)).mkdir(parents=True)
            for number in range(60 * copies):
                Image.fromarray(drawn[number % 12]).save(root / half / str(label) / f"{number:03}.png")
    assert len(list(root.glob("test/*/*"))) > 2 * BATCH_SIZE
    return root


def command(data: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    asked = ["-m", "capsnet", "evaluate", "capsnet-mnist", "--data", data, "--device", "cpu", "--json"]
    return subprocess.run([*launch, *asked], capture_output=True, text=True, check=False, timeout=300)


def test_a_folder_that_is_not_kept_in_memory_gives_what_the_library_says(
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
def test_processes_share_the_work_and_count_the_same(pictures: Path, data: str) -> None:
    name = f"folder:{pictures}" if data == "folder" else data
    one, two = command(name), command(name, processes=2)
    assert one.returncode == two.returncode == 0, two.stderr
    assert json.loads(two.stdout) == json.loads(one.stdout)


@pytest.mark.parametrize(("labels", "title"), [([3], "test error"), ([3, 5], "pair error")])
def test_both_digits_of_a_pair_must_be_found_and_the_error_says_so(labels: list[int], title: str) -> None:
    model = CapsNet(CapsNetConfig(stem_channels=2, primary_types=1, decoder=None))
    images = torch.rand(2, 1, 28, 28)
    batch = Batch(images, torch.tensor([labels] * 2), images[:, None].repeat(1, len(labels), 1, 1, 1))
    with WorkerGroup() as workers:
        counted = count_errors(model, iter([[Path("a"), Path("b")]]), lambda _: batch, workers)
    assert counted is not None
    assert (counted.title, counted.n) == (title, 2)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_image_that_is_none_is_named_once(pictures: Path, processes: int) -> None:
    bad = pictures / "test" / "7" / "broken.png"
    bad.write_bytes(b"no picture")
    try:
        done = command(f"folder:{pictures}", processes)
    finally:
        bad.unlink()
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert "broken.png" in done.stderr
    assert processes > 1 or (done.returncode == 2 and "Traceback" not in done.stderr)
