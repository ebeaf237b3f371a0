"""Everything worth measuring on a GPU in a few minutes: `python -m benchmarks.gpu --help`; see README.md here."""
