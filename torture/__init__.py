"""What happens when things go wrong: every claim of docs/reliability.md, tried again by `make torture`."""
