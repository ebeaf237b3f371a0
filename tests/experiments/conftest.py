"""Fixtures that the tests of experiments share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from made_up_data import write_data_sets


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets in their published formats, tiny and made up."""
    folder = tmp_path_factory.mktemp("data")
    write_data_sets(folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
