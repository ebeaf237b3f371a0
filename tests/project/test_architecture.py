"""The order of the folders: no upward imports, and no circles between files."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Folders of `src/capsnet`, bottom first. A folder imports only from lines above its own, never from its own line.
FLOORS = (
    {"_support", "functional"},
    {"convolution", "distributed", "routing"},
    {"data", "layers"},
    {"models"},
    {"explain", "inference"},
    {"training"},
    {"benchmark", "explorer", "report"},
    {"experiments"},
    {"cli"},
    {"__main__"},
)
Imports = dict[str, set[str]]


def modules(folder: Path) -> dict[str, Path]:
    """Every module below a folder, by its dotted name."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str) -> Iterator[str]:
    """What a module's source imports, also inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(sources: dict[str, str]) -> Imports:
    """Which of the modules each module imports. A package's `__init__` counts for the names it hands on."""

    def module_of(name: str) -> str | None:
        while name and name not in sources:
            name = name.rpartition(".")[0]
        return name or None

    return {
        name: {
            found for wanted in imported(source) if (found := module_of(wanted)) is not None and found != name
        }
        for name, source in sources.items()
    }


def upward(found: Imports) -> list[str]:
    """Imports that do not point to a lower floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for name, others in found.items():
        own = name.split(".")[1:2]
        for other in others:
            theirs = other.split(".")[1:2]
            # The package itself hands names on; nothing inside imports from it.
            if own and own != theirs and (not theirs or floor[theirs[0]] >= floor[own[0]]):
                wrong.append(f"{name} -> {other}")
    return sorted(wrong)


def circles(found: Imports) -> list[str]:
    """Modules from which an import leads back to themselves."""
    # A package's `__init__` imports its modules by nature; a module below it may not import it back.
    return sorted(name for name in found if name in reachable(found, found[name]))


def reachable(found: Imports, start: Iterable[str]) -> set[str]:
    """All modules that these import, directly or not."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(found[name])
    return seen


def sources(name: str) -> dict[str, str]:
    folder = {"capsnet": ROOT / "src" / "capsnet"}.get(name, ROOT / name)
    return {name: path.read_text(encoding="utf-8") for name, path in modules(folder).items()}


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in (ROOT / "src/capsnet").glob("*.py")}
    rooms |= {path.parent.name for path in (ROOT / "src/capsnet").glob("*/__init__.py")}
    assert rooms - {"__init__"} == set().union(*FLOORS)


def test_no_import_points_upwards() -> None:
    assert upward(imports(sources("capsnet"))) == []


@pytest.mark.parametrize("package", ["capsnet", "torture", "benchmarks"])
def test_no_files_import_each_other_in_a_circle(package: str) -> None:
    assert circles(imports(sources(package))) == []


def test_an_upward_import_is_found() -> None:
    changed = sources("capsnet")
    changed["capsnet.models.base"] += "\ndef f():\n    from capsnet.training.config import TrainConfig\n"
    assert upward(imports(changed)) == ["capsnet.models.base -> capsnet.training.config"]


def test_a_circle_is_found() -> None:
    changed = sources("capsnet")
    changed["capsnet.data.dataset"] += "\nfrom capsnet.data.digits import load\n"
    assert "capsnet.data.digits" in circles(imports(changed))


def test_the_root_has_at_most_20_entries() -> None:
    assert len([path for path in (ROOT / "src/capsnet").iterdir() if path.name != "__pycache__"]) <= 20
