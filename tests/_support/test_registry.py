"""Registries: names, plug-ins from other packages, and what is said when one of them is broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from capsnet._support.errors import CapsnetError
from capsnet._support.registry import Registry

GROUP = "capsnet.toys"
#: A registry in a module that plug-ins can import.
HOME = """
from capsnet._support.registry import Registry

TOYS = Registry("toy", "capsnet.toys", needs=("play",), builtin={"ball": "toys.ball"})
"""
BALL = """
from toys.home import TOYS

@TOYS.register("ball")
class Ball:
    def play(self): return "bounces"
"""
Install = Callable[..., None]


class Kite:
    def play(self) -> str:
        return "flies"


def toys() -> Registry[type[Kite]]:
    return Registry("toy", GROUP, needs=("play",))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install packages as pip would: a module and its entry points, on the path of a new process."""

    def install(name: str, source: str, **entries: str) -> None:
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{entry} = {value}" for entry, value in entries.items())]
        (about / "entry_points.txt").write_text("\n".join(lines))

    package = tmp_path / "toys"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "home.py").write_text(HOME)
    (package / "ball.py").write_text(BALL)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("toys", "toys.home", "toys.ball", "rope", "other"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return install


def home() -> Registry[type[Kite]]:
    from toys.home import TOYS  # type: ignore[import-not-found]

    registry: Registry[type[Kite]] = TOYS
    return registry


ROPE = """
from toys.home import TOYS

@TOYS.register("rope")
class Rope:
    def play(self): return "skips"
"""


def test_what_is_registered_is_found_and_unchanged() -> None:
    registry = toys()
    assert registry.register("kite")(Kite) is Kite
    assert registry.get("kite") is Kite
    assert registry.names() == ["kite"]


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    registry = toys()
    registry.register("kite")(Kite)
    with pytest.raises(
        CapsnetError, match=r"^there is no toy 'kit'; choose one of kite; did you mean 'kite'\?$"
    ):
        registry.get("kit")


def test_a_taken_name_is_refused_and_the_first_stays() -> None:
    registry = toys()
    registry.register("kite")(Kite)
    with pytest.raises(
        CapsnetError, match=r"toy name 'kite' is taken by .*\.Kite; register .* under another name"
    ):
        registry.register("kite")(type("Dragon", (Kite,), {}))
    assert registry.get("kite") is Kite


def test_a_module_that_is_run_again_replaces_its_own() -> None:
    registry = toys()
    for _ in range(2):
        again = type("Kite", (), {"play": Kite.play, "__module__": Kite.__module__})
        assert registry.register("kite")(again) is again
    assert registry.get("kite") is again


def test_what_the_protocol_asks_for_must_be_there() -> None:
    with pytest.raises(CapsnetError, match=r"toy 'stone' \(builtins\.object\) lacks play; add"):
        toys().register("stone")(object)


@pytest.mark.parametrize("name", ["", "My Toy", "a,b", "-x", "a\nb", Kite])
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(CapsnetError, match=r'must be lower-case .* as in @register\("my-name"\)') as refused:
        toys().register(name)
    assert "\n" not in str(refused.value)


def test_built_in_things_are_imported_when_asked_for(install: Install) -> None:
    registry = home()
    assert registry.names() == ["ball"]
    assert "toys.ball" not in sys.modules
    assert registry.get("ball")().play() == "bounces"


def test_an_installed_plugin_is_found_without_an_import(install: Install) -> None:
    install("rope", ROPE, rope="rope")
    registry = home()
    assert registry.names() == ["ball", "rope"]
    assert "rope" not in sys.modules
    assert registry.get("rope")().play() == "skips"
    assert registry.get("rope") is registry.get("rope")


@pytest.mark.parametrize(
    ("source", "entry", "message"),
    [
        (
            "import a_module_that_is_missing",
            "rope",
            "cannot be imported: ModuleNotFoundError: No module named",
        ),
        (
            "raise RuntimeError('two\\nlines')",
            "rope",
            "cannot be imported: RuntimeError: two lines; repair or unin",
        ),
        ("def f(:", "rope", "cannot be imported: SyntaxError"),
        (
            ROPE,
            "cord",
            r"does not register 'cord'; the entry point and @register\(...\) must have the same name",
        ),
        (ROPE.replace("play", "work"), "rope", r"toy 'rope' \(rope\.Rope\) lacks play; add what is missing"),
        (
            ROPE.replace('"rope"', '"ball"'),
            "ball",
            "toy name 'ball' is taken by toys.ball.Ball; register rope.Rope",
        ),
    ],
)
def test_a_broken_plugin_is_named_in_one_line_and_disturbs_no_other_name(
    install: Install, source: str, entry: str, message: str
) -> None:
    install("rope", source, **{entry: "rope"})
    install("other", ROPE.replace('"rope"', '"other"'), other="other")
    registry = home()
    for _ in range(2):  # asked again, it is still broken
        with pytest.raises(
            CapsnetError, match=rf"^plug-in '{entry}' \(rope, package rope\).*{message}"
        ) as error:
            registry.get(entry)
        assert "\n" not in str(error.value)
    assert registry.get("other")().play() == "skips"


def test_two_plugins_with_one_name_are_refused(install: Install) -> None:
    install("rope", ROPE, rope="rope")
    install("other", ROPE.replace("Rope", "Cord"), rope="other")
    with pytest.raises(
        CapsnetError, match=r"^plug-in 'rope' .* 'rope' is taken by \w+\.\w+; register \w+\.\w+ under"
    ):
        home().get("rope")


def test_the_registry_does_not_wait_for_pytorch() -> None:
    code = "import capsnet._support.registry, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
