"""README.md shows what the records hold."""

from pathlib import Path

from benchmarks.results_table import table

from capsnet.experiments.record import read_records


def test_the_readme_shows_what_the_records_hold() -> None:
    top = Path(__file__).parents[2]
    assert table(read_records(top / "results")) in (top / "README.md").read_text(encoding="utf-8")
