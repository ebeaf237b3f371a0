"""A small model on a real server, for the tests of the explorer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from capsnet.explorer.session import Session, open_session
from capsnet.explorer.site import export_site
from chromium import chromium
from explorer_client import save, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    """Without the control that comes with the package: it has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capsnet.models.saved.SHIPPED", folder.parent / "none")
        yield open_session(str(folder))


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with served(session) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the model that comes with the package, in a sub-folder of what is to be hosted."""
    folder = tmp_path_factory.mktemp("host") / "a" / "site"
    if built := os.environ.get("CAPSNET_SITE"):  # by `make site`, to save the export's minute
        folder.parent.mkdir()
        folder.symlink_to(Path(built).resolve() / "explorer")
    else:
        export_site("capsnet-mnist", folder)
    return folder
