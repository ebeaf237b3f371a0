"""Export the explorer of a run as a folder of static files, which needs no server of ours and no Python.

building.py   the folder: page, model, runtime; written whole or not at all
exported.py   a program → ONNX, checked against PyTorch
weights.py    the weights of all programs, each stored once
runtime.py    ONNX Runtime Web, from npm or from the cache
"""

from __future__ import annotations

from capsnet.explorer.site.building import Site, export_site

__all__ = ["Site", "export_site"]
