"""Rendered toys under smallNORB's viewpoints. `shapes.py` builds them, `rendering.py` takes the pictures."""
