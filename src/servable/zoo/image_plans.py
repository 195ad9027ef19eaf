"""The sizes and names that every builder of an image model reads; how they are put together each writes for itself."""

from __future__ import annotations

NORM_EPSILON = 1e-3
CHANNELS = 3

SIMPLE_SIZE = 224
SIMPLE_STAGES = ((6, 9), (12, 16), (32, 64), (128, 256))
"""Feature maps after each convolution, 3 x 3 and without padding; a stage but the last ends in a mean of 2 x 2."""
SIMPLE_LAST = 20
"""What is left of height and width, over which the mean is taken at the end."""
SIMPLE_HIDDEN = 512
SIMPLE_CLASSES = 100

RESNET_SIZE = 256
RESNET_STEM = 64
RESNET_STAGES = ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3))
"""Number of the stage, feature maps within its blocks, blocks. The first block of stages 3 to 5 halves the size."""
RESNET_EXPANSION = 4
"""A block ends in that many times the feature maps that it works with."""
RESNET_FEATURES = 2048
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_DEVIATION = (58.395, 57.12, 57.375)
"""Of red, green and blue from 0 to 255: what ResNets are commonly trained with."""
PERSON = "person"
"""The one class of the detector."""


def simple_layers() -> tuple[tuple[str, int, int], ...]:
    """Return name, feature maps before and after of each convolution of ``simple_cnn``."""
    layers, before = [], CHANNELS
    for stage, maps in enumerate(SIMPLE_STAGES, start=1):
        for place, after in enumerate(maps, start=1):
            layers.append((f"conv{stage}_{place}", before, after))
            before = after
    return tuple(layers)


def blocks(stage: int, count: int) -> tuple[str, ...]:
    """Return the names of a stage's blocks: ``2a``, ``2b``, ``2c``."""
    return tuple(f"{stage}{letter}" for letter in "abcdef"[:count])
