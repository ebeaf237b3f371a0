"""Layers for your own PyTorch models: primary capsules, capsule layers, decoder.

primary_capsules.py  image → primary capsules
primary_poses.py     feature maps → primary capsules with poses and activations
capsule_layer.py     capsules → capsules, by routing
class_vectors.py     capsules → class capsules whose length says whether, with any routing
conv_capsules.py     maps of capsules → maps of capsules, or class capsules
decoder.py           class capsules → image

May import `functional`, `routing`, `convolution` and `_support`. Begin with `capsule_layer.py`.
"""

from capsnet.layers.capsule_layer import CapsuleLayer
from capsnet.layers.class_vectors import ClassVectors
from capsnet.layers.conv_capsules import ConvCapsules, PooledCapsules
from capsnet.layers.decoder import Decoder
from capsnet.layers.primary_capsules import PrimaryCapsules
from capsnet.layers.primary_poses import PrimaryPoses

__all__ = [
    "CapsuleLayer",
    "ClassVectors",
    "ConvCapsules",
    "Decoder",
    "PooledCapsules",
    "PrimaryCapsules",
    "PrimaryPoses",
]
