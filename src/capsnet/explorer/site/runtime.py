"""Provide ONNX Runtime Web: the npm package's files that the page needs.

The package (27 MB) is neither committed nor part of the wheel. npm fetches it once, its hash is checked, and it stays
in the user's cache. A machine without npm takes the file of the package from another one.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from capsnet._support.errors import CapsnetError, shown
from capsnet._support.files import write_bytes

NAME, VERSION = "onnxruntime-web", "1.30.0"
#: The npm registry's integrity value of the package.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILE = f"{NAME}-{VERSION}.tgz"
#: The build for WebAssembly alone; without the threads, it needs no special headers.
MODULE, GLUE, BINARY = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
LICENCE = """ONNX Runtime Web. MIT License. Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def runtime_files(package: Path | None = None) -> dict[str, bytes]:
    """Return the runtime's files by name.

    Args:
        package: the npm package's file. Default: from the cache, or fetched by npm.

    Raises:
        CapsnetError: npm is missing or fails, or the package has another hash.
    """
    archive = package or _cached()
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise CapsnetError(f"--runtime: {shown(archive)} cannot be read: {error.strerror}") from error
    _check(content, archive)
    with tarfile.open(archive) as tar:
        found = {}
        for name in (MODULE, GLUE, BINARY):
            member = tar.extractfile(f"package/dist/{name}")
            assert member is not None
            found[name] = member.read()
    return found


def _check(content: bytes, where: Path) -> None:
    if "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
        raise CapsnetError(
            f"{shown(where)} is not {NAME} {VERSION}: its hash differs; delete it and try again"
        )


def _cached() -> Path:
    """Return the package in the cache; npm fetches it first if it is not there."""
    import pooch

    path = Path(pooch.os_cache("capsnet")) / FILE
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise CapsnetError(
            f"the site needs {NAME} {VERSION}, and npm, which fetches it, is not installed; install Node.js, or run "
            f"`npm pack {NAME}@{VERSION}` on another machine and give --runtime {FILE}"
        )
    with tempfile.TemporaryDirectory(prefix="capsnet-") as folder:
        command = [npm, "pack", "--silent", "--pack-destination", folder, f"{NAME}@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        fetched = Path(folder) / FILE
        if done.returncode or not fetched.exists():
            reason = (done.stderr.strip() or "no output").splitlines()[-1]
            raise CapsnetError(
                f"npm cannot fetch {NAME} {VERSION} ({shown(reason)[:200]}); give --runtime {FILE} instead"
            )
        content = fetched.read_bytes()
        _check(content, fetched)
        write_bytes(path, content)
    return path
