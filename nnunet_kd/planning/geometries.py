"""What goes into the networks of published experiments at once: slices, their size, batch and channels."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice

_AUTHORS = "the public code of Maheshwari et al. 2021"
_NNUNET = "not published; nnU-Net's own plan of the data set"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A patch and what it holds.

    Attributes:
        patch: Voxels per axis as nnU-Net orders them, slices first.
        batch_size: Patches per training step.
        input_channels: Images per case.
        regions: Foreground structures that the published networks have outputs for.
        source: Where the numbers are from.
    """

    patch: tuple[int, int, int]
    batch_size: int
    input_channels: int
    regions: int
    source: str


# The five data sets of Distill DSM. Its volumes are resampled whole to heart's and pancreas' sizes; here they are
# patches of nnU-Net's volumes, at nnU-Net's spacing.
GEOMETRIES: Mapping[str, Geometry] = {
    "heart": Geometry(patch=(128, 160, 160), batch_size=2, input_channels=1, regions=1, source=_AUTHORS),
    "hippocampus": Geometry(patch=(40, 56, 40), batch_size=9, input_channels=1, regions=2, source=_NNUNET),
    "pancreas": Geometry(patch=(145, 128, 128), batch_size=4, input_channels=1, regions=2, source=_AUTHORS),
    "prostate": Geometry(patch=(20, 320, 256), batch_size=2, input_channels=2, regions=2, source=_NNUNET),
    "brats2020": Geometry(patch=(128, 128, 128), batch_size=2, input_channels=4, regions=3, source=_NNUNET),
}


def with_geometry(configuration: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration of nnU-Net's plans with the patch and batch size of a geometry.

    Spacing, network and everything else stay; whether the network's strides divide the patch is the planner's to see.

    Args:
        configuration: Has ``patch_size``.
        name: A key of :data:`GEOMETRIES`.

    Raises:
        UsageError: If there is no such geometry, or the configuration is not 3-D.

    Example:
        >>> with_geometry({"patch_size": [40, 56, 40], "batch_size": 9}, "heart")
        {'patch_size': [128, 160, 160], 'batch_size': 2}
    """
    check_choice(name, GEOMETRIES, "geometry")
    n_axes = len(configuration["patch_size"])
    if n_axes != 3:
        raise UsageError(f"geometry: {name} has 3 axes, the configuration has {n_axes}; type -c 3d_fullres")
    geometry = GEOMETRIES[name]
    return deepcopy(dict(configuration)) | {"patch_size": list(geometry.patch), "batch_size": geometry.batch_size}
