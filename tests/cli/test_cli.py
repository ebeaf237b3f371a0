"""The command line as a person meets it: what it prints, what it leaves behind, how it fails."""

import gzip
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from PIL import Image

from capsnet import CapsNet, CapsNetConfig
from capsnet._support import dispatch
from capsnet.cli.loading import load_for
from capsnet.data import load_local
from capsnet.experiments.tuning import RATES
from command import Command, assert_one_line

FEW = ("--stem-channels", "4", "--primary-types", "1", "--no-report", "--device", "cpu")


def picture(path: Path, bright: bool, size: int = 18, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 90, (size, size), np.uint8)
    pixels[: size // 2] += 150 * bright
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(10):
        picture(folder / "bright" / f"{number}.png", True)
        picture(folder / "dark" / f"{number}.png", False)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A finished run on pictures of two classes, made by the installed command in a process of its own."""
    run = tmp_path_factory.mktemp("runs") / "run"
    arguments = [
        "train",
        "--data",
        f"folder:{pictures}",
        "--out",
        str(run),
        "--steps",
        "12",
        "--lr",
        "0.02",
        *FEW,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "capsnet", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "test error" in done.stdout
    return run


@pytest.mark.quick
def test_help_does_not_wait_for_pytorch() -> None:
    code = "import sys; from capsnet.cli import main; sys.argv[1:] = ['--help']\ntry: main()\nexcept SystemExit: pass\n"
    heavy = "print(sorted({'torch', 'numba', 'matplotlib', 'sklearn', 'accelerate'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert "train" in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.quick
def test_version_and_the_list_of_data_sets(capsnet: Command) -> None:
    assert capsnet("--version").out.startswith("capsnet ")
    listed = capsnet("data").out
    assert "mnist5k" in listed
    assert "folder:PATH" in listed


@pytest.mark.quick
def test_train_then_evaluate_then_predict(capsnet: Command, finished: Path, pictures: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert (result["n"], result["steps"]) == (4, 12)
    evaluated = capsnet("evaluate", finished, "--json")
    assert json.loads(evaluated.out)["test_error"] == result["test_error"]
    answers = capsnet("predict", finished, pictures / "bright" / "3.png", pictures / "dark", "--json")
    lines = [json.loads(line) for line in answers.out.splitlines()]
    assert [Path(line["name"]).name for line in lines] == [
        "3.png",
        *(f"{number}.png" for number in range(10)),
    ]
    assert {line["label"] for line in lines} <= {"bright", "dark"}
    assert all(0 <= line["score"] < 1 for line in lines)
    told = json.loads(capsnet("predict", finished, pictures / "dark" / "1.png", "--scores", "--json").out)
    assert told["scores"].keys() == {"bright", "dark"}
    assert told["score"] == max(told["scores"].values())


def test_resuming_a_finished_run_says_so(capsnet: Command, finished: Path) -> None:
    outcome = capsnet("train", "--resume", finished)
    assert outcome.code == 0
    assert "is finished" in outcome.out


def test_options_cannot_be_changed_when_resuming(capsnet: Command, finished: Path) -> None:
    assert_one_line(capsnet("train", "--resume", finished, "--epochs", 3), "--epochs cannot be changed")


def test_a_small_folder_is_trained_for_500_steps_with_20_looks_at_the_test_images_by_default(
    capsnet: Command, tmp_path: Path, pictures: Path
) -> None:
    """Its epochs are of one batch: neither too few steps, nor a screen full of them."""
    arguments = ("train", "--data", f"folder:{pictures}", "--out", tmp_path / "run", *FEW)
    done = capsnet(*arguments)
    assert done.code == 0, done
    assert done.err.count("test error") == 20
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 500


@pytest.mark.parametrize(
    ("options", "steps", "looks"),
    [(("--epochs", 3), 3, 1), (("--steps", 50), 50, 2), (("--steps", 5, "--evaluate-every", 1), 5, 5),
     (("--epochs", 3, "--evaluate-every", 0), 3, 1)],
)  # fmt: skip
def test_length_and_evaluations_follow_the_options(
    capsnet: Command, tmp_path: Path, pictures: Path, options: tuple[object, ...], steps: int, looks: int
) -> None:
    done = capsnet("train", "--data", f"folder:{pictures}", "--out", tmp_path / "run", *options, *FEW)
    assert done.code == 0, done
    assert done.err.count("test error") == looks
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == steps


def test_training_without_fast_paths(
    capsnet: Command, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    loss = CapsNet.loss
    monkeypatch.setattr(CapsNet, "loss", lambda *given: (seen.append(dispatch.enabled()), loss(*given))[1])
    outcome = capsnet(
        "train", "--data", f"folder:{pictures}", "--out", tmp_path / "run", "--steps", 2, "--no-fast", *FEW
    )
    assert outcome.code == 0
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert set(seen) == {False}
    assert dispatch.enabled(), "only for this training"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "nosuch"), ("'nosuch'", "mnist5k")),
        (("--data", "folder:/no/such/place"), ("/no/such/place", "not a directory")),
        (("--lr", "-1"), ("--learning-rate is -1",)),
        (("--batch-size", "0"), ("--batch-size is 0",)),
        (("--device", "cuda:99"), ("'cuda:99'", "auto")),
        (("--iterations", "0"), ("--iterations is 0",)),
        (("--hold-out", "0.9"), ("--hold-out is 0.9",)),
        (("--stem-channels", "100000000"), ("parameters",)),
    ],
)
def test_invalid_options_leave_no_run(
    capsnet: Command, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome = capsnet("train", "--out", tmp_path / "run", "--steps", 1, "--no-report", *options)
    assert_one_line(outcome, *words)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "not an image": lambda whole: b"hello, I am text\n" * 20,
    "truncated": lambda whole: whole[: len(whole) // 2],
    "0 bytes": lambda whole: b"",
    "20,000 × 20,000": lambda whole: png_claiming(20_000, 20_000),
    "1 × 1": lambda whole: png_claiming(1, 1),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_named_in_one_line(
    capsnet: Command, tmp_path: Path, finished: Path, pictures: Path, kind: str
) -> None:
    bad = tmp_path / "classes" / "bright" / "bad.png"
    picture(bad, True)
    picture(tmp_path / "classes" / "bright" / "good.png", True)
    picture(tmp_path / "classes" / "dark" / "good.png", False)
    picture(tmp_path / "classes" / "dark" / "better.png", False)
    bad.write_bytes(BAD_IMAGES[kind](bad.read_bytes()))
    assert_one_line(capsnet("predict", finished, bad), "bad.png")
    outcome = capsnet("train", "--data", f"folder:{tmp_path / 'classes'}", "--out", tmp_path / "run", *FEW)
    assert_one_line(outcome, "bad.png")
    assert not (tmp_path / "run").exists()


def test_answers_before_a_bad_image_are_printed(
    capsnet: Command, tmp_path: Path, finished: Path, pictures: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    outcome = capsnet("predict", finished, pictures / "dark" / "0.png", tmp_path / "bad.png")
    assert_one_line(outcome, "bad.png")
    assert "0.png" in outcome.out


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "P", "I;16", "LA", "1", "CMYK"])
def test_every_kind_of_pixel_is_converted(
    capsnet: Command, tmp_path: Path, finished: Path, mode: str
) -> None:
    path = tmp_path / ("image.tif" if mode in ("I;16", "CMYK") else "image.png")
    if mode == "I;16":
        Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(path)
    else:
        picture(path, True, size=33, mode=mode)
    outcome = capsnet("predict", finished, path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(str(path))


def test_a_missing_or_unfinished_run_is_one_line(capsnet: Command, tmp_path: Path) -> None:
    for command in (("evaluate",), ("report",), ("train", "--resume")):
        assert_one_line(capsnet(*command, tmp_path / "nowhere"), "nowhere")
        assert_one_line(
            capsnet(*command, tmp_path),
            "config.json is missing" if command[0] == "evaluate" else "no run at",
        )


def test_damaged_checkpoints_are_one_line(capsnet: Command, tmp_path: Path, pictures: Path) -> None:
    model = CapsNet(CapsNetConfig(image_shape=(1, 18, 18), num_classes=2, stem_channels=4, primary_types=1))
    model.save_pretrained(tmp_path)
    image = pictures / "dark" / "0.png"
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    whole, described = weights.read_bytes(), config.read_text()
    assert capsnet("predict", tmp_path, image).code == 0
    weights.write_bytes(whole[: len(whole) // 2])
    assert_one_line(capsnet("predict", tmp_path, image), "model.safetensors", "damaged")
    weights.write_bytes(whole)
    config.write_text(described[:-30])
    assert_one_line(capsnet("predict", tmp_path, image), "config.json")
    config.write_text(described.replace('"capsnet"', '"resnet"'))
    assert_one_line(capsnet("predict", tmp_path, image), "'resnet'")
    config.write_text(described.replace('"num_classes": 2', '"num_classes": 3'))
    assert_one_line(capsnet("predict", tmp_path, image), "does not fit its config.json")
    config.write_text(described)
    weights.unlink()
    assert_one_line(capsnet("predict", tmp_path, image), "model.safetensors is missing")


def test_the_wrong_data_set_for_a_model_is_one_line(capsnet: Command, tmp_path: Path, finished: Path) -> None:
    assert_one_line(capsnet("evaluate", finished, "--data", "mnist5k"), "2 classes", "10")
    CapsNet(CapsNetConfig(image_shape=(1, 20, 20), stem_channels=4, primary_types=1)).save_pretrained(
        tmp_path
    )
    assert_one_line(capsnet("evaluate", tmp_path, "--data", "mnist5k"), "(1, 20, 20)", "(1, 28, 28)")
    assert_one_line(capsnet("evaluate", tmp_path), "--data")


def idx(labels: bytes, magic: int) -> bytes:
    return gzip.compress(struct.pack(">II", magic, len(labels)) + labels)


def test_idx_files_with_a_wrong_header_or_checksum_are_one_line(capsnet: Command, tmp_path: Path) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(idx(b"\1\2\3", 0x801))
    arguments = ("train", "--data", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "run", *FEW)
    assert_one_line(capsnet(*arguments), "idx3-ubyte")
    broken = bytearray(idx(b"\1\2\3", 0x801))
    broken[-6] ^= 0xFF
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(broken)
    assert_one_line(capsnet(*arguments), "train-images-idx3-ubyte")
    assert not (tmp_path / "run").exists()


def test_an_empty_class_is_named(capsnet: Command, tmp_path: Path) -> None:
    picture(tmp_path / "classes" / "full" / "1.png", True)
    (tmp_path / "classes" / "empty").mkdir()
    assert_one_line(capsnet("train", "--data", f"folder:{tmp_path / 'classes'}", *FEW), "empty")


def test_without_a_network_it_says_which_file_to_put_where(
    capsnet: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = capsnet("train", "--data", "mnist", "--out", tmp_path / "run", *FEW)
    assert_one_line(done, "idx3-ubyte.gz", "--data-dir", "CAPSNET_DATA")
    assert not (tmp_path / "run").exists()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_nan_loss_ends_in_a_message_and_leaves_no_model(
    capsnet: Command, tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: CapsNet, batch: object) -> dict[str, torch.Tensor]:
        return {"loss": self.class_capsules.weight.sum() * torch.nan}

    monkeypatch.setattr(CapsNet, "loss", broken)
    outcome = capsnet("train", "--data", f"folder:{pictures}", "--out", tmp_path / "run", "--steps", 3, *FEW)
    assert outcome.code == 2
    assert "the loss is not finite" in outcome.err
    assert "--learning-rate" in outcome.err
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_that_cannot_be_written_is_one_line(
    capsnet: Command, tmp_path: Path, pictures: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = capsnet(
        "train", "--data", f"folder:{pictures}", "--out", tmp_path / "file" / "run", "--steps", 1, *FEW
    )
    assert_one_line(outcome, "cannot write", "a file is where a folder should be")


def test_an_existing_run_is_not_overwritten(capsnet: Command, finished: Path, pictures: Path) -> None:
    before = (finished / "model.safetensors").read_bytes()
    assert_one_line(
        capsnet("train", "--data", f"folder:{pictures}", "--out", finished, *FEW), "not empty", "--resume"
    )
    assert (finished / "model.safetensors").read_bytes() == before


def test_evaluating_on_other_class_names_is_refused(capsnet: Command, tmp_path: Path, finished: Path) -> None:
    for number in range(5):  # as bright and dark, the other way round
        picture(tmp_path / "evening" / f"{number}.png", False)
        picture(tmp_path / "morning" / f"{number}.png", True)
    outcome = capsnet("evaluate", finished, "--data", f"folder:{tmp_path}")
    assert_one_line(outcome, "class 0 is 'evening'", "'bright'", "the same classes")


def test_images_too_small_for_the_network_say_what_to_do(capsnet: Command, tmp_path: Path) -> None:
    for name in "ab":
        for number in range(4):
            picture(tmp_path / "tiny" / name / f"{number}.png", bright=name == "a", size=12)
    arguments = ("--data", f"folder:{tmp_path / 'tiny'}", "--out", tmp_path / "out")
    assert_one_line(capsnet("train", *arguments), "12×12", "--image-size 28")
    assert_one_line(capsnet("compare", *arguments), "12×12", "--image-size 28")
    assert not (tmp_path / "out").exists()


def test_large_images_need_an_explicit_image_size(capsnet: Command, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(2):
            picture(tmp_path / "photos" / name / f"{number}.png", name == "cat", size=200)
    data = ("--data", f"folder:{tmp_path / 'photos'}", "--steps", 1, "--out", tmp_path / "run", *FEW)
    assert_one_line(capsnet("train", *data), "200×200", "--image-size 32")
    assert not (tmp_path / "run").exists()
    done = capsnet("train", *data, "--image-size", 20)
    assert done.code == 0, done.err
    assert "resized to 20×20" in done.err  # what it trains on is said before it starts


def test_a_folder_without_prefix_is_refused_and_names_the_prefix(capsnet: Command, pictures: Path) -> None:
    assert_one_line(capsnet("train", "--data", pictures, "--steps", 1), f"folder:{pictures}")


def test_evaluate_says_how_many_images_it_uses(capsnet: Command, finished: Path, pictures: Path) -> None:
    done = capsnet("evaluate", finished, "--data", f"folder:{pictures}")
    assert done.code == 0, done.err
    assert "4 of 20 images" in done.err


@pytest.mark.parametrize("command", [("compare",), ("reproduce", "table1"), ("bench",)])
def test_single_process_commands_refuse_a_launcher(
    capsnet: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_one_line(capsnet(*command), f"capsnet {command[0]}", "without torchrun")
    assert list(tmp_path.iterdir()) == []


def test_compare_answers_in_one_sentence_and_resumes(
    capsnet: Command, tmp_path: Path, pictures: Path
) -> None:
    own = Path(copytree(pictures, tmp_path / "my pictures"))
    out = tmp_path / "out"
    arguments = ("compare", "--data", f"folder:{own}", "--scale", "smoke", "--seeds", 2, "--device", "cpu")
    first = capsnet(*arguments, "--out", out)
    assert first.code == 0, first
    assert first.err.count("choosing a learning rate") == 4 * len(RATES)
    page = (out / "compare-my-pictures" / "smoke.md").read_text()
    answer = first.out.splitlines()[-2]
    assert answer.split(":")[0] in ("Yes", "No", "In part", "Undecided")
    assert answer in page

    rmtree(out / "compare-my-pictures" / "runs")  # what is known is in the records
    again = capsnet(*arguments, "--out", out, "--json")
    assert again.err.count("already finished") == 4 * 2
    assert "choosing" not in again.err
    compared = json.loads(again.out)
    assert compared["answer"] == answer
    assert [len(model["test_errors"]) for model in compared["models"]] == [2] * 4
    assert {model["n"] for model in compared["models"]} == {4}

    records = {path: path.read_bytes() for path in out.rglob("*.json")}
    other_steps = capsnet(*arguments, "--out", out, "--steps", 3)
    assert_one_line(other_steps, "other --steps", "--out", "--no-resume")
    picture(own / "bright" / "3.png", False)  # another image under the same name
    assert_one_line(capsnet(*arguments, "--out", out), "other images", "--out", "--no-resume")
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == records
    anew = capsnet(*arguments, "--out", out, "--no-resume", "--lr", 0.002, "--json")
    assert {model["learning_rate"] for model in json.loads(anew.out)["models"]} == {0.002}
    table = capsnet("report", "--results", out, "--target", tmp_path / "page.md")
    assert_one_line(table, "only results of `capsnet compare`", "compare-my-pictures")


def test_compare_refuses_to_write_among_the_images(capsnet: Command, tmp_path: Path, pictures: Path) -> None:
    own = Path(copytree(pictures, tmp_path / "own"))
    (own / "README.md").write_text("mine")
    before = sorted(own.rglob("*"))
    refused = capsnet("compare", "--data", f"folder:{own}", "--scale", "smoke", "--out", own / "results")
    assert_one_line(refused, "among the images", "--out")
    assert sorted(own.rglob("*")) == before
    assert (own / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--data", "mnst"), "did you mean 'mnist'?"),
        (("train", "--data", "folder:"), "as in folder:photos"),
        (("train", "--data-dir", "nowhere"), "--data-dir: nowhere is not a directory"),
        (("train", "--shift", "28"), "at most 27"),
        (("train", "--epochs", "1", "--steps", "2"), "give one of them"),
        (("reproduce", "tabel1"), "did you mean 'table1'?"),
        (("evaluate", "capsnet-mnst"), "did you mean 'capsnet-mnist'?"),
        (("bench", "--csv", "."), "it is a folder; name a file"),
        (("bench", "--csv", "nowhere/rows.csv"), "the folder nowhere does not exist"),
        (("export", "cnn-mnist", "."), "it is a folder; name a file"),
        (("export", "cnn-mnist", "nowhere/model.onnx"), "the folder nowhere does not exist"),
        (("export", "cnn-mnist", "model.safetensors"), "must end in .onnx or .pt2"),
    ],
)
def test_bad_options_fail_before_loading(capsnet: Command, arguments: tuple[str, ...], said: str) -> None:
    assert_one_line(capsnet(*arguments), said)


def test_ctrl_c_says_that_it_interrupted(capsnet: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capsnet.training.listing.list_runs", interrupted)
    outcome = capsnet("runs")
    assert (outcome.code, outcome.err.strip()) == (130, "error: interrupted")


def test_a_path_to_a_weights_file_is_refused_and_names_its_folder(capsnet: Command, finished: Path) -> None:
    assert_one_line(
        capsnet("evaluate", finished / "model.safetensors"), f"name its folder instead: {finished}"
    )


def test_resuming_or_reporting_on_renamed_classes_is_refused(
    capsnet: Command, tmp_path: Path, pictures: Path
) -> None:
    own, run = Path(copytree(pictures, tmp_path / "own")), tmp_path / "run"
    trained = capsnet("train", "--data", f"folder:{own}", "--out", run, "--steps", 1, *FEW)
    assert trained.code == 0, trained
    (own / "bright").rename(own / "zebra")
    (run / "result.json").rename(run / "elsewhere.json")
    for again in (("evaluate", run), ("train", "--resume", run)):
        assert_one_line(capsnet(*again), "class 0 is 'dark'", "'bright'")
    (run / "elsewhere.json").rename(run / "result.json")
    assert_one_line(capsnet("report", run), "class 0 is 'dark'", "'bright'")


def test_evaluating_on_training_digits_says_so(capsnet: Command) -> None:
    done = capsnet("evaluate", "cnn-mnist", "--data", "mnist5k")
    assert done.code == 0, done.err
    assert "this model was trained on them" in done.err


def test_a_folder_is_loaded_at_the_size_of_the_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (30, 20), 100 * number).save(tmp_path / name / f"{number}.png")
    data = f"folder:{tmp_path}"
    square = CapsNet(CapsNetConfig(image_shape=(1, 18, 18), num_classes=2, stem_channels=2, primary_types=1))
    assert load_for(square, data, None).image_shape == (1, 18, 18)
    assert load_local(data, (1, 18, 18), 2) is not None
    assert load_local(data, (1, 20, 30), 2) is not None
