"""The GPU kit, packed as for a bare machine, at toy size; killed on the way and started again."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu import pack
from benchmarks.gpu.runner import Report, without_fast_paths
from benchmarks.gpu.take import take

from capsnet.experiments.record import Record
from capsnet.routing import agree_backends, backends
from made_up_data import write_data_sets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton has wheels for Linux alone")
#: Seconds after which the kit counts as stuck.
HUNG = 900


def start(folder: Path, out: Path, said: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [folder / "run", "--dry-run", "--out", out, "--minutes", "60"]
    with said.open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def jobs(out: Path) -> dict[str, Any]:
    report = out / "report.json"
    return dict(json.loads(report.read_text())["jobs"]) if report.exists() else {}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("kit")
    (base / "data").mkdir()
    write_data_sets(base / "data")
    pack.pack(base / "packed", base / "data", [], "3.12", [])
    return base / "packed"


@pytest.mark.slow
def test_a_killed_kit_loses_at_most_the_job_in_flight(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed, deadline = start(packed, out, tmp_path / "killed.log"), time.monotonic() + HUNG
    while len(jobs(out)) < 4 and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    assert killed.wait() == -9
    before = jobs(out)
    assert start(packed, out, tmp_path / "log").wait(HUNG) == 0
    said = (tmp_path / "log").read_text()

    after = jobs(out)
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--list", "--out", out],
        capture_output=True,
        text=True,
        check=True,
        cwd=packed,
        env={**os.environ, "PYTHONPATH": f"{packed}:{packed / 'src'}"},
    )
    assert list(after) == [line.split()[-1] for line in listed.stdout.splitlines()]
    assert {job["state"] for job in after.values()} == {"done"}, said
    assert {name: after[name] for name in before} == before
    assert said.count("done before") == len(before)
    assert set(after["smoke"]["result"]["checks"].values()) == {"ok"}
    assert all(row["ok"] for row in after["routing"]["result"]["parity"] if row["kernels"] == "triton")
    assert len(list(out.iterdir())) <= 8
    with zipfile.ZipFile(out / "records.zip") as records:
        single = sum(name.startswith(("table1:", "multimnist:")) for name in after)
        many = sum(job["result"] for name, job in after.items() if name.startswith("quick:"))
        assert len(records.namelist()) == single + many

    with pytest.raises(ValueError, match="dry run"):
        take(out, tmp_path)
    report = json.loads((out / "report.json").read_text())
    report["about"] = {"toy": False, "commit": "0123456789ab"}
    report["jobs"]["smoke"]["result"]["environment"]["gpu"] = "NVIDIA H100 80GB HBM3"
    (out / "report.json").write_text(json.dumps(report))
    new = take(out, tmp_path / "checkout")
    tables = {path.name for path in new if path.suffix == ".csv"}
    assert tables == {f"gpu-{name}-h100.csv" for name in ("routing", "agree", "profile", "step")}
    kept = [path for path in new if path.is_relative_to(tmp_path / "checkout" / "results")]
    assert Record.read(kept[0]).environment["commit"] == "0123456789ab"
    assert all(path.suffix == ".csv" for path in take(out, tmp_path / "checkout"))  # records stay


def test_a_path_that_failed_is_picked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    u = torch.zeros(2, 3, 4)
    for module in (backends, agree_backends):
        monkeypatch.setattr(module, "FAST", module.FAST)  # as it was after this test
        assert module.pick("auto", u) is not module.pick("chunked", u)
    without_fast_paths(("triton", "cpu"))
    for module in (backends, agree_backends):
        assert module.pick("auto", u) is module.pick("chunked", u)
        assert module.pick("cpu", u) is not module.pick("chunked", u)  # by name


def test_paths_that_the_smoke_job_did_not_find_ok_are_not_used(tmp_path: Path) -> None:
    report = Report(tmp_path, {})
    assert report.broken() == ("triton",)
    report.jobs["smoke"] = {"result": {"checks": {"triton": "CompilationError: no"}}}
    assert report.broken() == ("triton",)
    report.jobs["smoke"]["result"]["checks"]["triton"] = "ok"
    assert report.broken() == ()
