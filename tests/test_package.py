"""What comes with the package: models, the explorer's page, types. Also run from an installed wheel."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import torch

from capsnet.models import load_model
from capsnet.models.base import find_pretrained

PACKAGE = files("capsnet")


@pytest.mark.parametrize("name", ["capsnet-mnist", "cnn-mnist"])
def test_shipped_models_answer(name: str) -> None:
    folder = find_pretrained(name)
    assert str(folder).startswith(str(PACKAGE))
    with torch.no_grad():
        assert load_model(folder)(torch.rand(2, 1, 28, 28)).isfinite().all()


def test_every_file_of_the_page_is_there() -> None:
    static = PACKAGE / "explorer" / "static"
    wanted, seen = ["main.js"], set()
    page = (static / "index.html").read_text(encoding="utf-8")
    wanted += [name for name in re.findall(r'(?:src|href)="([^"#:]+)"', page) if "." in name]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        content = (static / name).read_text(encoding="utf-8")
        folder = name.rpartition("/")[0]
        for found in re.findall(r'^import .* from "(\./|\.\./)([^"]+)"', content, re.MULTILINE):
            wanted.append(found[1] if found[0] == "../" or not folder else f"{folder}/{found[1]}")
    assert len(seen) > 20


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").is_file()
