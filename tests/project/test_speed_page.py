"""docs/speed.md shows what was measured."""

from pathlib import Path

from benchmarks.speed_table import read, write


def test_the_page_about_speed_shows_what_was_measured() -> None:
    top = Path(__file__).parents[2]
    page = (top / "docs/speed.md").read_text(encoding="utf-8")
    for name in ("cpu.csv", "cpu-avx2.csv"):
        rows = read(top / "benchmarks/results" / name)
        assert write(page, name, rows) == page
        assert f"<!-- table of {name} -->\n\n| |" in page
        assert rows[0]["commit"][:7] in page
