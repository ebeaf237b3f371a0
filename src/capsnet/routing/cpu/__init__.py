"""Routing on CPUs with Numba kernels; `backend.py` is what `route` calls. See README.md for why it exists."""
