"""Build the folder of a site: the page, the model's programs and weights, the runtime, and the data to show."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import cannot_write, sync_folder
from capsnet._support.version import __version__
from capsnet.explorer.describing import describe, examples, meanings
from capsnet.explorer.page import page_files
from capsnet.explorer.programs.program import form_of
from capsnet.explorer.schemas import PARAMETERS, Transform
from capsnet.explorer.session import Session, open_session
from capsnet.explorer.site.exported import Exported, export_variants, rounding
from capsnet.explorer.site.runtime import BINARY, GLUE, LICENCE, MODULE, VERSION, runtime_files
from capsnet.explorer.site.weights import Precision, WeightStore
from capsnet.explorer.testset import measured_or_measure
from capsnet.inference.export import check_installed
from capsnet.models.protocols import decodes

#: Lists a site's files; a folder with this file and no others may be replaced.
MARK = "site.json"
#: Largest difference that rounded weights may make, before the page would show another network.
LARGEST_ROUNDING = 0.05


@dataclass(frozen=True)
class Site:
    """Describe an exported site."""

    folder: Path
    size: int
    """Bytes of all files."""
    compressed: int
    """Bytes of all files as a host sends them that compresses text and scripts."""
    difference: float
    digits: int
    precision: Precision


def export_site(
    run: str,
    folder: Path,
    *,
    float32: bool = False,
    runtime: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Site:
    """Write the explorer of a run as static files, for any web server.

    Args:
        run: a run folder, a saved model, or the name of a bundled model.
        folder: new, empty, or an older site, which is replaced. It appears complete or not at all.
        float32: store exact weights; the default rounds them to float16 and measures the difference.
        runtime: the file of the npm package `onnxruntime-web`; the default is fetched by npm once.
        say: receives a line about each step.

    Raises:
        CapsnetError: the folder holds other files; the run does not exist, is no capsule network or cannot be traced; a
            package is missing; or the runtime cannot be fetched.
    """
    check_installed()
    refuse_other_files(folder)
    session = open_session(run)
    files = {f"runtime/{name}": content for name, content in runtime_files(runtime).items()}
    files["runtime/LICENSE.txt"] = LICENCE.encode()
    # A host may not compress WebAssembly; the page unpacks it.
    files[f"runtime/{BINARY}"] = gzip.compress(files[f"runtime/{BINARY}"], mtime=0)
    precision: Precision = "float32" if float32 else "float16"
    store = WeightStore(precision)
    programs: dict[str, list[Exported]] = {}
    for name in session.programs:
        say(f"exporting {name}")
        programs[name] = export_variants(name, session, store)
    say("measuring")
    difference, digits = rounding(programs["trace"][0], store.values(), session)
    if not difference <= LARGEST_ROUNDING:
        raise CapsnetError(
            f"{shown(session.run)}: {precision} weights change the capsules by {difference:.1e}; give --float32"
        )
    files |= model_files(programs, store)
    files |= data_files(session)
    note = {"precision": precision, "difference": difference, "digits": digits}
    files["data/engine.json"] = _json(
        {
            "version": __version__,
            "runtime": {"version": VERSION, "module": MODULE, "glue": GLUE, "binary": BINARY},
            "programs": {name: _about(name, session, exported) for name, exported in programs.items()},
            "parameters": PARAMETERS,
            "motion": list(Transform.model_fields),
            "files": {
                name: _seal(files[name]) for name in files if name.startswith(("model/", "runtime/ort-wasm"))
            },
            **note,
        }
    )
    files |= page_files()
    files[MARK] = _json({"capsnet": __version__, "run": session.run, "files": sorted([*files, MARK])})
    write_folder(folder, files)
    sizes = (len(content) for content in files.values())
    compressed = (min(len(content), len(gzip.compress(content))) for content in files.values())
    return Site(folder, sum(sizes), sum(compressed), difference, digits, precision)


def model_files(programs: dict[str, list[Exported]], store: WeightStore) -> dict[str, bytes]:
    """Return the programs and their weights."""
    files = {
        f"model/{name}-{variant.limit}.onnx": variant.content
        for name, variants in programs.items()
        for variant in variants
    }
    return files | {f"model/{name}.bin": content for name, content in store.packed().items()}


def data_files(session: Session) -> dict[str, bytes]:
    """Return the answers that no visitor changes."""
    answers: dict[str, Any] = {
        "model": describe(session),
        "examples": examples(session),
    }
    if "ablation" not in session.absent:
        answers["testset"] = measured_or_measure(session)
    if decodes(session.model):
        answers["meanings"] = [
            meanings(session, number) for number in range(session.model.config.num_classes)
        ]
    return {f"data/{name}.json": _json(answer) for name, answer in answers.items()}


def _about(name: str, session: Session, variants: list[Exported]) -> dict[str, Any]:
    return {
        "inputs": variants[0].inputs,
        "outputs": variants[0].outputs,
        "limits": [variant.limit for variant in variants],
        "weights": variants[0].files,
        "form": form_of(session.programs[name].answer),
    }


def _seal(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _json(value: Any) -> bytes:
    return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    assert isinstance(value, BaseModel)
    return value.model_dump()


def refuse_other_files(folder: Path) -> None:
    """Raise CapsnetError if a folder holds anything but an older site."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CapsnetError(f"--site {shown(folder)}: it is a file; name a folder")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    try:
        known = set(json.loads((folder / MARK).read_bytes())["files"]) if MARK in there else set()
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    if others := sorted(there - known):
        raise CapsnetError(
            f"--site {shown(folder)}: it holds other files ({shown(others[0])}); name a new or an empty folder"
        )


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write a folder beside its place and move it there when it is complete.

    Raises:
        CannotWrite: the disk is full, or the place is not writable.
    """
    target = folder.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            new, old = Path(beside) / "new", Path(beside) / "old"
            for name, content in files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if target.exists():
                target.rename(old)
            new.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
