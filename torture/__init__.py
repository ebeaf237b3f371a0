"""Test every claim of docs/reliability.md under failures: `make torture`."""
