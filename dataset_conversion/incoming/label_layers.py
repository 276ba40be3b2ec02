"""A label map that the organisers give as masks, one file per annotated structure."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_kd.dataset_conversion.incoming.volumes import Image, as_labels, read_image


def painted(layers: Sequence[tuple[Path, int]]) -> Image:
    """Paint masks one over the other; one mask at a time is in memory.

    Args:
        layers: A mask, 0 where it is empty, and the value of its voxels, 1 to 255; later ones lie above.

    Returns:
        The label map as uint8 ``(x, y, z)``, with the header of the first mask.

    Raises:
        Exception: Whatever the readers raise for a damaged file.
    """
    labels = as_labels(read_image(layers[0][0]), {})
    for path, value in layers:
        labels.stored[read_image(path).values() != 0] = value
    return labels
