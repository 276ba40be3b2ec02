"""Spline interpolation as one small matrix per axis, equal to ``scipy.ndimage`` up to rounding.

Interpolation on a grid is the tensor product of maps along single axes. Applied one after the other they cost
``order + 1`` products per voxel and axis instead of ``(order + 1)**3`` per voxel, and any box of the result can be had
from the box of the input that it depends on.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
# the response to a cubic spline's prefilter falls by 0.27 a voxel and never ends; what is below this is rounding
_NEGLIGIBLE = {np.dtype(np.float64): 1e-14, np.dtype(np.float32): 1e-7}
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class AxisMap:
    """A linear map along one axis whose rows each depend on a short stretch of the input.

    Attributes:
        matrix: ``(n_out, n_in)``.
        first: Where each row's stretch begins, ``(n_out,)``.
        last: Where it ends, inclusive.
    """

    matrix: Floats
    first: NDArray[np.intp]
    last: NDArray[np.intp]

    @property
    def n_out(self) -> int:
        """Length of the axis afterwards."""
        return int(self.matrix.shape[0])

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the half-open stretch of the input that rows ``start`` to ``stop`` depend on."""
        return int(self.first[start:stop].min()), int(self.last[start:stop].max()) + 1

    def outputs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the half-open stretch of rows that depend on inputs ``start`` to ``stop``; ``(0, 0)`` if none do."""
        touched = np.flatnonzero((self.first < stop) & (self.last >= start))
        return (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 0)

    def part(self, start: int, stop: int) -> "AxisMap":
        """Return the map of rows ``start`` to ``stop`` from their own inputs."""
        low, high = self.inputs(start, stop)
        return AxisMap(self.matrix[start:stop, low:high], self.first[start:stop] - low, self.last[start:stop] - low)


@lru_cache(maxsize=64)
def axis_map(n_in: int, n_out: int, order: int, precision: str = "float64") -> AxisMap:
    """Return the map that resizes an axis as ``scipy.ndimage`` does with ``mode="nearest"``.

    Args:
        n_in: Length before.
        n_out: Length after; voxel edges of both axes coincide.
        order: Spline order, 0 to 5.
        precision: Type of the matrix, ``float64`` or ``float32``.

    Example:
        >>> axis_map(2, 4, 1).matrix.tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    from scipy import ndimage

    sampling: Any = ndimage  # its stubs take orders as literals
    # what skimage's resize calls; the coordinates are those that nnU-Net gives to map_coordinates, to the last bit
    factors = (1 / (n_in / n_out), 1)
    matrix = sampling.zoom(np.eye(n_in), factors, order=order, mode="nearest", grid_mode=True)
    dtype = np.dtype(precision)
    matters = np.abs(matrix) > _NEGLIGIBLE[dtype]
    matrix = np.where(matters, matrix, 0).astype(dtype)
    return AxisMap(matrix, matters.argmax(axis=1), n_in - 1 - matters[:, ::-1].argmax(axis=1))


def apply_along(array: Floats, axis: int, mapping: AxisMap) -> Floats:
    """Apply a map along one axis.

    Args:
        array: Of the matrix' type.
        axis: Whose length is the map's ``n_in``.
        mapping: The map.

    Returns:
        A new array, ``n_out`` long along the axis.
    """
    if (mapping.last - mapping.first).max() <= 1:
        return _blend(array, axis, mapping)
    moved = np.moveaxis(array, axis, 0)
    flat = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    out = np.empty((mapping.n_out, flat.shape[1]), dtype=array.dtype)
    for start in range(0, mapping.n_out, _BLOCK):
        stop = min(start + _BLOCK, mapping.n_out)
        low, high = mapping.inputs(start, stop)
        np.matmul(mapping.matrix[start:stop, low:high], flat[low:high], out=out[start:stop])
    return np.moveaxis(out.reshape(mapping.n_out, *moved.shape[1:]), 0, axis)


def _blend(array: Floats, axis: int, mapping: AxisMap) -> Floats:
    rows = np.arange(mapping.n_out)
    out = np.take(array, mapping.first, axis=axis)
    if (mapping.first == mapping.last).all() and (mapping.matrix[rows, mapping.first] == 1).all():
        return out
    shape = [1] * array.ndim
    shape[axis] = -1
    out *= mapping.matrix[rows, mapping.first].reshape(shape)
    # where a row has one input only, the second weight is none
    second = np.where(mapping.last > mapping.first, mapping.matrix[rows, mapping.last], 0).astype(array.dtype)
    other = np.take(array, mapping.last, axis=axis)
    other *= second.reshape(shape)
    out += other
    return out
