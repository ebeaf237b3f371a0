"""The site's reference has every public name and every command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import capsnet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="no MkDocs here: pip install 'capsnet[docs]'")
    pytest.importorskip("latex2mathml", reason="no latex2mathml here: pip install 'capsnet[docs]'")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "web" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_its_place(hooks: ModuleType) -> None:
    pages = dict(hooks.reference())
    everything = "\n".join(pages.values())
    for name, home in hooks.homes().items():
        assert f"[`capsnet.{name}`][{home}.{name}]" in pages["reference/capsnet.md"]
        assert f"::: {home}.{name}\n" in everything
    for room in ("routing", "data", "models"):
        for name in getattr(capsnet, room).__all__:
            assert f"::: capsnet.{room}.{name}\n" in pages[f"reference/capsnet.{room}.md"]


def test_commands_say_what_their_help_says(hooks: ModuleType) -> None:
    page = hooks.command_line()
    assert "## capsnet train" in page
    assert "--site DIR | Write the explorer as static files instead." in page


def test_mathematics_needs_no_script(hooks: ModuleType) -> None:
    page = hooks.on_page_content(r'<p><span class="arithmatex">\(a &lt; b_{ij}\)</span></p>')
    assert page.startswith("<p><math")
    assert "<mo>&#x0003C;</mo>" in page
