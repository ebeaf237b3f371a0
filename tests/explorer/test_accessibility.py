"""axe-core finds nothing wrong on the explorer's stages and on the tutorial's pages, in both colour schemes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import PATIENCE
from site_server import hosted

BUILT = os.environ.get("CAPSNET_SITE")
pytestmark = pytest.mark.browser
needs_site = pytest.mark.skipif(
    BUILT is None, reason="`make test-browser` builds the site and sets CAPSNET_SITE"
)


@pytest.fixture(scope="module")
def explorer(exported: Path) -> Iterator[str]:
    with hosted(exported) as address:
        yield address


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with hosted(Path(BUILT or "")) as address:
        yield address


def violations(page: Any) -> list[tuple[str, list[Any]]]:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_explorer_s_stages(browser: Any, explorer: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    page.goto(explorer)
    page.wait_for_selector("html[data-traced]")
    for view in page.locator("[role=tab]").all():
        view.click()
        page.wait_for_selector("html:not([data-busy])")
        assert violations(page) == [], view.inner_text()
    page.close()


@needs_site
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tutorial_the_notebooks_and_the_first_page(browser: Any, site: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    chapters = sorted(path.name for path in (Path(BUILT or "") / "tutorial").glob("*.html"))
    assert len(chapters) == 10
    notebooks = sorted(path.name for path in (Path(BUILT or "") / "notebooks").glob("*.html"))
    assert len(notebooks) == 3
    pages = [*(f"tutorial/{name}" for name in chapters), *(f"notebooks/{name}" for name in notebooks)]
    for address in ("index.html", *pages):
        page.goto(site + address)
        for figure in page.locator("[data-figure]").all():
            figure.scroll_into_view_if_needed()
            page.wait_for_function("(figure) => 'ready' in figure.dataset", arg=figure.element_handle())
        assert violations(page) == [], address
    page.close()
