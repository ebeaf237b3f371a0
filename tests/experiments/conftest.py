"""Fixtures that the tests of experiments share."""

from pathlib import Path

import pytest

from made_up_data import write_data_sets


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets in their published formats, tiny and made up."""
    folder = tmp_path_factory.mktemp("data")
    write_data_sets(folder)
    return folder
