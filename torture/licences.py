"""Write docs/licences.md: the licences of all packages that capsnet needs to run.

`python -m torture.licences` reads them from the installed packages, and the versions from constraints.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from capsnet._support.files import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
#: Extras of an installed capsnet; the tools of the tests are not included.
EXTRAS = ("explorer", "export", "datasets", "serve")

PERMISSIVE = re.compile(
    r"(the )?(new |modified |simplified )?("
    r"MIT(-CMU|-0)?|0BSD|([23][- ]clause )?BSD([- ][23][- ]clause)?|Apache([- ](software|2\.0))?|"
    r"ISC( license \(ISCL\))?|PSF-2\.0|Python Software Foundation|HPND|Zlib|CC0-1\.0|BSL-1\.0|Unlicense|LLVM-exception"
    r")( license)?",
    re.IGNORECASE,
)
#: Licences that require publishing changes to the package's own files, but not the code that uses it.
WEAK = re.compile(
    r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)|L?GPL-[\d.]+\S*-with-\S+", re.IGNORECASE
)
STRONG = re.compile(r"\bA?GPL|General Public|LGPL|Lesser", re.IGNORECASE)

HEAD = """# Licences

capsnet has the MIT licence. The table lists the packages that it needs to run, including the extras `explorer`,
`export`, `datasets` and `serve`, with the versions of `constraints.txt` on Linux without CUDA.
`python -m torture.licences` writes this page.
The licences are from the packages' metadata. Libraries inside a package's wheel (OpenBLAS, libgfortran, zlib, …) have
their licence files in the wheel and are not listed.
"""


@dataclass(frozen=True)
class Licence:
    """Hold the licence that one package states."""

    name: str
    text: str
    kind: str
    """permissive, weak copyleft, copyleft, or unknown."""


def kind(text: str) -> str:
    """Classify a licence's name or SPDX expression; its strictest part decides."""
    if not text:
        return "unknown"
    parts = [
        part.strip(" ()") if " OR " in text or " AND " in text else part.strip()
        for part in re.split(r" (?:AND|OR|WITH) ", text)
    ]
    if all(PERMISSIVE.fullmatch(part) for part in parts):
        return "permissive"
    if all(PERMISSIVE.fullmatch(part) or WEAK.fullmatch(part) for part in parts):
        return "weak copyleft"
    return "copyleft" if any(STRONG.search(part) for part in parts) else "unknown"


def stated(package: Distribution) -> Licence:
    """Return a package's licence from its expression, licence field or classifiers.

    The first of these that can be classified is taken.
    """
    metadata = package.metadata
    one = {name: (metadata.get_all(name) or [""])[0] for name in ("License", "License-Expression")}
    field = one["License"].strip().partition("\n")[0]
    classifiers = metadata.get_all("Classifier") or []
    names = [line.rpartition("::")[2].strip() for line in classifiers if line.startswith("License ::")]
    texts = [one["License-Expression"], field[:80], " AND ".join(names)]
    known = [text for text in texts if kind(text) != "unknown"]
    text = next(iter([*known, *filter(None, texts)]), "")
    return Licence(canonicalize_name(metadata["Name"]), text or "not stated", kind(text))


def needed() -> dict[str, Distribution | None]:
    """Return the packages that capsnet needs, by name; None if not installed."""
    found: dict[str, Distribution | None] = {}
    asked: set[tuple[str, frozenset[str]]] = set()
    left = [("capsnet", frozenset(EXTRAS))]
    while left:
        name, extras = left.pop()
        if (name, extras) in asked:
            continue
        asked.add((name, extras))
        try:
            package = found[name] = distribution(name)
        except PackageNotFoundError:
            found[name] = None
            continue
        for requirement in map(Requirement, package.requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                left.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    del found["capsnet"]
    return dict(sorted(found.items()))


def licences() -> list[Licence]:
    """Return the licences of all needed packages, by name; unknown if not installed."""
    return [
        Licence(name, "not installed", "unknown") if package is None else stated(package)
        for name, package in needed().items()
    ]


def pins() -> dict[str, str]:
    """Return the versions in constraints.txt, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def page(found: list[Licence]) -> str:
    """Return the Markdown page."""
    versions = pins()
    odd = [licence for licence in found if licence.kind != "permissive"]
    lines = [HEAD]
    if odd:
        lines += ["Not fully permissive:", ""]
        lines += [f"- {licence.name}: {licence.text} ({licence.kind})" for licence in odd]
        lines.append("")
    lines += ["| package | version | licence | |", "|---|---|---|---|"]
    for licence in found:
        text = licence.text.replace("|", "\\|")
        lines.append(f"| {licence.name} | {versions.get(licence.name, 'any')} | {text} | {licence.kind} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page(licences()))
