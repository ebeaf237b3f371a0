"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_is_an_example_and_it_is_short() -> None:
    assert EXAMPLES
    assert len(EXAMPLES[0].strip().splitlines()) <= 10


@pytest.mark.quick
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number: int) -> None:
    exec(compile(EXAMPLES[number], "README.md", "exec"), {})


def test_what_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README)
    for link in links:
        if not link.startswith("http"):
            assert (Path(__file__).parents[1] / link).exists(), link
