"""Files from strangers: refused in one line, before they cost memory or time, and never run as code."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torture.fuzz.runs import RESULT_JSON, tiny_stepper

from capsnet import CapsNet, CapsNetConfig, CapsnetError
from capsnet._support.files import MAX_JSON_BYTES, read_json
from capsnet._support.validation import parse_config
from capsnet.cli.console import fail, out
from capsnet.data.idx import read_idx
from capsnet.data.images import read_image
from capsnet.inference.prediction import image_files, predict_files
from capsnet.models import CNNConfig
from capsnet.models.cnn import Stage
from capsnet.report.page import Section, render
from capsnet.training.config import TrainConfig
from capsnet.training.run import Run
from command import Command

SMALL = CapsNetConfig(
    image_shape=(1, 8, 8), num_classes=2, stem_channels=2, stem_kernel=3, primary_types=1, primary_dim=2,
    primary_kernel=3, class_dim=2, decoder=None,
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1e400}',
        '{"a": NaN}',
        '{"a": ' + "9" * 100_000 + "}",
        "[" * 100_000,
        "[" * 65 + "]" * 65,
        '{"a": "\\ud800"}',
        '["' + '\\"' * 100_000,
        " " * MAX_JSON_BYTES + "1",
    ],
    ids=["twice", "1e400", "nan", "digits", "deep", "deep-closed", "surrogate", "quotes", "long"],
)
def test_ambiguous_or_huge_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CapsnetError, match=r"config\.json cannot be read as JSON") as caught:
        read_json(path)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


ABSURD = [
    (CapsNetConfig, {"num_classes": 10**9}),
    (CapsNetConfig, {"num_classes": 10**18}),
    (CapsNetConfig, {"stem_channels": -1}),
    (CapsNetConfig, {"image_shape": [1, 10**9, 10**9], "stem_stride": 10**8, "decoder": None}),
    (CapsNetConfig, {"image_shape": [1, 8000, 8000], "primary_stride": 4000, "decoder": None}),
    (CapsNetConfig, {"decoder": [1] * 100_000}),
    (CNNConfig, {"hidden": [1] * 100_000}),
    (CNNConfig, {"stages": [{"channels": 1, "kernel": 1}] * 100_000}),
    (CNNConfig, {"stages": [{"channels": 10**9, "kernel": 1}]}),
    (CNNConfig, {"stages": [[[[[]]]]]}),
    (TrainConfig, {"seed": 10**18}),
    (TrainConfig, {"shift": 10**9}),
    (TrainConfig, {"image_size": -5}),
    (TrainConfig, {"learning_rate": "fast"}),
]


def test_absurd_configurations_are_refused_before_allocating_memory(tmp_path: Path) -> None:
    import resource
    import tracemalloc

    for config_class, values in ABSURD:  # compiles the readers, which is memory too
        with pytest.raises(CapsnetError):
            parse_config(config_class, values, tmp_path / "config.json")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for config_class, values in ABSURD:
        with pytest.raises(CapsnetError, match=r"config\.json: ") as caught:
            parse_config(config_class, values, tmp_path / "config.json")
        assert str(caught.value).isprintable()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kB"


def test_numbers_of_thousands_of_digits_are_refused_by_name() -> None:
    for build in (
        lambda: CapsNetConfig(num_classes=10**5000),
        lambda: CNNConfig(hidden=(10**5000,)),
        lambda: Stage(10**5000, 1),
        lambda: TrainConfig(seed=10**5000),
    ):
        with pytest.raises(CapsnetError, match=r"classes|hidden|channels|seed"):
            build()


def test_a_small_file_cannot_ask_for_a_large_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CapsNet(SMALL).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    about["model"] |= {"stem_channels": 4000, "primary_types": 1000, "decoder": [10_000]}
    (tmp_path / "config.json").write_text(json.dumps(about))
    build = CapsNet.__init__

    def without_memory(*arguments: Any, **options: Any) -> None:
        assert torch.empty(1).is_meta, "memory was asked for"
        build(*arguments, **options)

    monkeypatch.setattr(CapsNet, "__init__", without_memory)
    with pytest.raises(CapsnetError, match=r"it holds .* of the model's .* weights"):
        CapsNet.from_pretrained(tmp_path)


def test_integer_or_overflowing_weights_are_refused(tmp_path: Path) -> None:
    CapsNet(SMALL).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({name: torch.ones_like(tensor, dtype=torch.int64) for name, tensor in tensors.items()}, path)
    with pytest.raises(CapsnetError, match="int64"):
        CapsNet.from_pretrained(tmp_path)
    save_file({name: torch.full_like(t, 1e300, dtype=torch.float64) for name, t in tensors.items()}, path)
    with pytest.raises(CapsnetError, match="NaN or infinity"):
        CapsNet.from_pretrained(tmp_path)


class Bomb:
    """What a pickle could do."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("exploded",))


def test_a_pickle_in_place_of_any_file_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capsnet.data.mat import read_mat
    from capsnet.data.npz import read_npz

    monkeypatch.chdir(tmp_path)
    model, _ = tiny_stepper()
    with Run.create(tmp_path / "run", model, TrainConfig()) as run:
        run.finish(model, RESULT_JSON)
    path = tmp_path / "file"
    for bomb in (pickle.dumps(Bomb()), pickle.dumps(Bomb(), protocol=0)):
        for name in ("state.safetensors", "model.safetensors", "result.json", "config.json"):
            (run.folder / name).write_bytes(bomb)
        path.write_bytes(bomb)
        for read in (
            run.load_checkpoint,
            run.result,
            run.training,
            lambda: CapsNet.from_pretrained(run.folder),
            lambda: read_idx(path, 3),
            lambda: read_image(path, (1, 8, 8)),
            lambda: read_npz(path),
            lambda: read_mat(path),
        ):
            with pytest.raises(CapsnetError) as caught:
                read()
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("changes", [
    {"optimizer.x.step": torch.zeros(())}, {"optimizer.0.exp_avg": torch.zeros(99)},
    {"optimizer.99.step": torch.zeros(())}, {"random.cpu": torch.zeros(3)}, {"random.cpu": None},
    {"model.extra": torch.zeros(1)},
])  # fmt: skip
def test_a_checkpoint_of_another_network_is_refused(changes: dict[str, torch.Tensor | None]) -> None:
    _, stepper = tiny_stepper()
    state = {**stepper.state(), **changes}
    with torch.random.fork_rng(), pytest.raises(CapsnetError, match=r"does not fit the run's config\.json"):
        stepper.load_state({name: tensor for name, tensor in state.items() if tensor is not None})


@pytest.mark.parametrize(
    "position", ["", "[]", "{}", '{"step": -1, "seconds": 0}', '{"step": "1", "seconds": 0}']
)
def test_a_checkpoint_without_a_valid_position_is_refused(tmp_path: Path, position: str) -> None:
    from safetensors.torch import save_file as save

    from capsnet.training.checkpoint import checksum

    tensors = {"a": torch.zeros(2)}
    save(
        tensors,
        tmp_path / "state.safetensors",
        {"position": position, "checksum": checksum(tensors, position)},
    )
    with pytest.raises(CapsnetError, match="cannot be resumed"):
        Run(tmp_path).load_checkpoint()


def test_invalid_metrics_lines_are_skipped(tmp_path: Path) -> None:
    lines = [
        '{"step": 1}',
        '{"step": ' + "9" * 5000 + "}",
        "[" * 9000,
        '{"step": true}',
        '{"step": -1}',
        "x" * 10**6,
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n" + '{"step": 2}')
    assert Run(tmp_path).metrics() == [{"step": 1}, {"step": 2}]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "state.safetensors", "image.png"):
        os.mkfifo(tmp_path / name)
    run = Run(tmp_path)
    for read in (
        run.saved,
        run.metrics,
        run.load_checkpoint,
        lambda: read_image(tmp_path / "image.png", (1, 8, 8)),
        lambda: read_idx(tmp_path / "image.png", 3),
    ):
        with pytest.raises(CapsnetError, match=r"not a file|cannot be resumed"):
            read()


UGLY = "a\n\x1b[31m[/b]<script>alert(1)</script>:smile:\udcff"


def test_file_names_are_printed_on_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail(f"{UGLY}: broken")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "\x1b[31m" not in said
    assert "[/b]<script>alert(1)</script>:smile:\\udcff" in said, "markup is text"
    out.print("[/b]:smile:")
    assert capsys.readouterr().out == "[/b]:smile:\n"
    CapsNet(SMALL).save_pretrained(tmp_path)
    about = json.loads((tmp_path / "config.json").read_text())
    ugly = UGLY.removesuffix("\udcff")
    about["model"]["class_names"] = [ugly, "b"]
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert all(name.isprintable() for name in CapsNet.from_pretrained(tmp_path).class_names)
    picture = tmp_path / f"{UGLY.replace('/', '')}.png"
    Image.new("L", (9, 9)).save(picture)
    (answer,) = predict_files(CapsNet(SMALL), image_files([picture]))
    assert answer.name.isprintable()


def test_markup_in_names_is_text_in_the_report() -> None:
    page = render(UGLY, UGLY, [Section(UGLY, [UGLY], table=[(UGLY, UGLY)], facts=True, notes=[UGLY])], UGLY)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_predict_escapes_control_characters_in_file_names(tmp_path: Path, capsnet: Command) -> None:
    path = tmp_path / "no\n[b]\x1b[31m.png"
    path.write_bytes(b"nothing")
    ended = capsnet("predict", "capsnet-mnist", path)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "no\\n[b]\\x1b[31m.png" in ended.err


def limited(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code that may have two gigabytes of addresses on top of what PyTorch takes."""
    start = "import sys; from capsnet._support.errors import CapsnetError\nfrom pathlib import Path\n"
    # Not ru_maxrss: there a new program starts with what the tests themselves take.
    end = "\npeak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]"
    end += "\nsys.exit(int(peak) // 1024 > 700)"
    command = [sys.executable, "-c", start + code + end, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_gz_that_would_unpack_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = bytes(2**24)
    with path.open("wb") as file:
        file.write(packer.compress(bytes.fromhex("00000803" + "0000000a" * 3)))
        for _ in range(40):
            file.write(packer.compress(block))
        file.write(packer.flush())
    assert path.stat().st_size < 4_000_000
    code = """
from capsnet.data.idx import read_idx
try:
    read_idx(Path(sys.argv[1]), 3)
except CapsnetError as error:
    print(error)
"""
    ended = limited(code, str(path))
    assert ended.returncode == 0, ended.stderr
    assert "has extra bytes at the end" in ended.stdout


def test_an_archive_cannot_reach_outside_or_claim_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAPSNET_DATA", raising=False)
    import io
    import tarfile

    from capsnet.data.cifar10 import ARCHIVE, FILES, load

    path = tmp_path / ARCHIVE
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(3073))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(path, "w:gz") as tar:
            for name in FILES:
                member = tarfile.TarInfo(f"../../{name}")
                member.type, member.linkname = kind, str(secret)
                tar.addfile(member)
        with pytest.raises(CapsnetError, match=r"has no data_batch_1\.bin"):
            load(data_dir=tmp_path, download=False)
    with tarfile.open(path, "w:gz") as tar:
        for name in FILES:  # absolute names are names only: nothing is written
            member = tarfile.TarInfo(f"/etc/{name}")
            member.size = 3073
            tar.addfile(member, io.BytesIO(bytes(3073)))
    assert len(load(data_dir=tmp_path, download=False).train) == 5
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = 2**34
    path.write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(CapsnetError, match="more bytes than CIFAR-10"):
        load(data_dir=tmp_path, download=False)


def test_a_npz_cannot_claim_gigabytes_or_hold_something_else(tmp_path: Path) -> None:
    import zipfile

    import numpy as np

    from capsnet.data.npz import read_npz

    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images", b"no array")
    with pytest.raises(CapsnetError, match="not a NumPy archive"):
        read_npz(path)
    np.savez(path, a=np.array([Bomb()], dtype=object))
    with pytest.raises(CapsnetError, match="not a NumPy archive"):
        read_npz(path)


def test_a_compressed_bmp_of_two_hundred_bytes_does_not_take_half_a_minute(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"  # found by fuzzing
    path.write_bytes(
        zlib.decompress(
            base64.b64decode(
                "eNpz8vVjgAA7INYAs84zsABJRjCEAAEozcAKkgCJ/geBs/8/MOAHNkCQ4KnFoKUH5GSBjWLiZG46+OBCKI/RG6zKPYHK9RgwLEQDhrJMbnUMzAyMHLKyshyv/zPc5GDgYGAAAFutFzA="
            )
        )
    )
    with pytest.raises(CapsnetError, match="compressed BMP"):
        read_image(path, (1, 8, 8))
