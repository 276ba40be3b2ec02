"""A configuration at coarser spacing: fewer voxels of the same body, and preprocessing of its own."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import ceil, prod
from typing import Any

MINIMUM_EDGE = 4  # voxels that nnU-Net leaves along an axis of the coarsest stage


def coarser_spacing(spacing: Sequence[float], factor: float) -> list[float]:
    """Return the spacing at which no axis is finer than ``factor`` times the finest one.

    Axes that are coarse already stay as they are, so that slices are not thinned out where voxels are long.

    Args:
        spacing: Millimetres per axis.
        factor: At least 1.

    Example:
        >>> coarser_spacing([5.0, 0.75, 0.75], 2)
        [5.0, 1.5, 1.5]
    """
    return [float(max(along, factor * min(spacing))) for along in spacing]


def with_coarser_spacing(configuration: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return a configuration at coarser spacing, with a patch of the same extent and a ``data_identifier`` of its own.

    The patch has at least 4 voxels per axis at the network's coarsest stage, as nnU-Net plans it, or what it had
    before. It is not yet a multiple of the network's strides.

    Args:
        configuration: With nothing inherited.
        factor: At least 1.

    Example:
        >>> plan = {"spacing": [1.0, 1.0], "patch_size": [40, 56], "data_identifier": "a", "architecture": {}}
        >>> coarse = with_coarser_spacing(plan, 2)
        >>> coarse["spacing"], coarse["patch_size"], coarse["data_identifier"]
        ([2.0, 2.0], [20, 28], 'a_x2')
    """
    coarse = deepcopy(dict(configuration))
    coarse["spacing"] = coarser_spacing(configuration["spacing"], factor)
    shares = [old / new for old, new in zip(configuration["spacing"], coarse["spacing"], strict=True)]
    strides = configuration["architecture"].get("arch_kwargs", {}).get("strides", [])
    coarse["patch_size"] = [
        max(ceil(size * share - 1e-6), min(size, MINIMUM_EDGE * _stride(strides, axis)))
        for axis, (size, share) in enumerate(zip(configuration["patch_size"], shares, strict=True))
    ]
    if "median_image_size_in_voxels" in configuration:
        before = configuration["median_image_size_in_voxels"]
        scaled = [1.0] * (len(before) - len(shares)) + shares  # a 2-D configuration keeps its number of slices
        coarse["median_image_size_in_voxels"] = [n * share for n, share in zip(before, scaled, strict=True)]
    coarse["data_identifier"] = f"{configuration['data_identifier']}_x{factor:g}"
    return coarse


def _stride(strides: Sequence[Any], axis: int) -> int:
    return prod(stride if isinstance(stride, int) else stride[axis] for stride in strides)
