"""Layers for your own PyTorch models: primary capsules, capsule layers, decoder.

primary_capsules.py  image → primary capsules
capsule_layer.py     capsules → capsules, by routing
decoder.py           class capsules → image

May import `functional`, `routing`, `convolution` and `_support`. Begin with `capsule_layer.py`.
"""

from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.decoder import Decoder
from capsnet.layers.primary_capsules import PrimaryCapsules

__all__ = ["CapsuleLayer", "Decoder", "PrimaryCapsules"]
