"""What the README and the guide to one's own images show works as it stands there."""

import re
from pathlib import Path

import pytest

from capsnet.experiments.findings import findings, mean_of
from capsnet.experiments.record import read_records
from capsnet.experiments.record_groups import groups

ROOT = Path(__file__).parents[2]
README, GUIDE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/own-images.md"))
EXAMPLES = re.findall(r"```python\n(.*?)```", README + GUIDE, flags=re.DOTALL)


def test_there_is_an_example_and_it_is_short() -> None:
    assert EXAMPLES
    assert len(EXAMPLES[0].strip().splitlines()) <= 12


@pytest.mark.quick
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number: int) -> None:
    exec(compile(EXAMPLES[number], "README.md", "exec"), {})


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_in_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_guide_says_how_well_typicality_works() -> None:
    records = read_records(ROOT / "results")
    (group,) = (one for one in groups(records) if one.experiment.name == "unfamiliar")
    measure = next(measure for measure in group.experiment.measures if measure.key == "fashion")
    typical, length, softmax = (
        mean_of(group, name, measure) for name in ("capsule-drawing", "capsule-length", "cnn-max-pool")
    )
    told = (
        f"AUROC, {len(group.of('capsule-drawing'))} seeds: typicality {typical}, "
        f"length of the longest capsule {length}, softmax of a CNN {softmax}"
    )
    assert told in " ".join(GUIDE.split())


def test_what_was_found_is_what_the_records_say() -> None:
    assert findings(groups(read_records(ROOT / "results"))) in README
