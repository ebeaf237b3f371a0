"""Rendered toys under smallNORB's viewpoints.

shapes.py     builds the toys
rendering.py  renders images of them
"""
