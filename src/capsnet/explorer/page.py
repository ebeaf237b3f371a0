"""The page's files, for the server and for an exported site."""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
#: Allows WebAssembly and the page's own files, and nothing from another place.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)


def page_files() -> dict[str, bytes]:
    """Return the page, told to compute in the browser."""
    files = {
        str(path.relative_to(STATIC).as_posix()): path.read_bytes()
        for path in sorted(STATIC.rglob("*"))
        if path.is_file() and path.suffix != ".ts"
    }
    page = files["index.html"].decode()
    policy = f'<meta http-equiv="content-security-policy" content="{POLICY}">\n<meta name="viewport"'
    page = page.replace('<html lang="en">', '<html lang="en" data-engine="browser">', 1)
    files["index.html"] = page.replace('<meta name="viewport"', policy, 1).encode()
    return files
