"""Routing on CUDA devices with Triton kernels; `backend.py` is what `route` calls. See README.md for why it exists."""
