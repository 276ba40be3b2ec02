"""Images and logits on another grid, as nnU-Net's default resampling does it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.interpolation import AxisMap, Floats, apply_along, axis_map
from nnunet_kd.deployment.inference.plan import Resampling

Precision = Literal["float64", "float32"]
Box = Sequence[tuple[int, int]]
SLAB_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class Route:
    """How an array gets from one grid to another: maps along axes, one after the other.

    Attributes:
        shape: Of the result, three numbers.
        steps: Axis and map, in the order in which they are applied; axes that keep their length have none.
        linear: Whether no step overshoots, that is, all orders are below 2.
        separate_axis: The axis that is resampled apart, the last of the steps; ``None`` without one.
        precision: What is computed in.
    """

    shape: tuple[int, ...]
    steps: tuple[tuple[int, AxisMap], ...]
    linear: bool
    separate_axis: int | None
    precision: Precision


def new_shape(shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the number of voxels along each axis at another spacing.

    Example:
        >>> new_shape((10, 20), (3.0, 1.0), (1.0, 2.0))
        (30, 10)
    """
    return tuple(round(old / new * n) for old, new, n in zip(spacing, new_spacing, shape, strict=True))


def separate_axis(spacing: Sequence[float], new_spacing: Sequence[float], settings: Resampling) -> int | None:
    """Return the axis that nnU-Net resamples apart from the plane of the two others, or ``None``.

    That is the axis of the largest spacing where it exceeds the smallest by more than the threshold, before or after;
    none where two axes share it.
    """
    if settings.force_separate_z is False:
        return None
    candidates = [spacing, new_spacing]
    if settings.force_separate_z is None:
        threshold = settings.separate_z_anisotropy_threshold
        candidates = [values for values in candidates if max(values) / min(values) > threshold]
    if not candidates:
        return None
    axes = [axis for axis, value in enumerate(candidates[0]) if max(candidates[0]) / value == 1]
    return axes[0] if len(axes) == 1 else None


def find_route(
    shape: Sequence[int],
    target: Sequence[int],
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    settings: Resampling,
    *,
    precision: Precision = "float64",
) -> Route:
    """Find the maps that bring an array from one grid to another.

    Args:
        shape: Before, three numbers.
        target: After.
        spacing: Before, millimetres; decides with ``new_spacing`` whether an axis is resampled apart.
        new_spacing: After.
        settings: The resampling of the plans.
        precision: What to compute in; ``float64`` as nnU-Net does.
    """
    changed = [axis for axis in range(len(shape)) if shape[axis] != target[axis]]
    if settings.name == "no_resampling_hack":
        changed, target = [], shape
    apart = separate_axis(spacing, new_spacing, settings)
    # the first axis last: the rows of the result that are wanted then come from finished planes
    order = sorted(changed, key=lambda axis: (axis == apart, -axis))
    steps = tuple(
        (
            axis,
            axis_map(
                int(shape[axis]),
                int(target[axis]),
                settings.order_z if axis == apart else settings.order,
                precision,
            ),
        )
        for axis in order
    )
    return Route(
        shape=tuple(int(n) for n in target),
        steps=steps,
        linear=settings.order < 2 and (apart is None or settings.order_z < 2),
        separate_axis=apart,
        precision=precision,
    )


def resample(data: Floats, route: Route) -> Floats:
    """Bring an array to another grid.

    Beside the result it holds slabs of about 64 MB, of at least 32 rows.

    Args:
        data: ``(C, x, y, z)``.
        route: From :func:`find_route`.

    Returns:
        An array of the same type; ``data`` itself where the grids are equal.
    """
    if not route.steps:
        return data
    out = np.empty((data.shape[0], *route.shape), dtype=data.dtype)
    for channel, result in zip(data, out, strict=True):
        bounds = value_bounds(channel, route)
        for start, stop in slabs(route.shape, at_least=32):
            box = [(start, stop), (0, route.shape[1]), (0, route.shape[2])]
            result[start:stop] = resample_box(channel, route, box, bounds)
    return out


def slabs(shape: Sequence[int], at_least: int = 1, n_bytes: int = SLAB_BYTES) -> Iterator[tuple[int, int]]:
    """Yield stretches of the first axis of about ``n_bytes`` of float64 each.

    Example:
        >>> list(slabs((5, 10, 10), n_bytes=1600))
        [(0, 2), (2, 4), (4, 5)]
    """
    rows = max(n_bytes // (8 * int(np.prod(shape[1:]))), at_least, 1)
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


def value_bounds(channel: Floats, route: Route) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """Return the smallest and largest value that the result may have, ``None`` where interpolation keeps to them.

    nnU-Net clips what splines overshoot to the range of the volume, or, where an axis is resampled apart, to the range
    of each slice.

    Args:
        channel: ``(x, y, z)``.
        route: From :func:`find_route`.

    Returns:
        Two arrays that fit to ``channel`` by broadcasting.
    """
    if route.linear:
        return None
    axes = tuple(axis for axis in range(channel.ndim) if axis != route.separate_axis)
    return channel.min(axis=axes, keepdims=True), channel.max(axis=axes, keepdims=True)


def resample_box(
    channel: Floats,
    route: Route,
    box: Box,
    bounds: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
) -> Floats:
    """Compute a box of the result from what it depends on.

    Args:
        channel: The whole input, ``(x, y, z)``.
        route: From :func:`find_route`.
        box: Half-open stretches of the result's axes, none of them empty.
        bounds: From :func:`value_bounds`.

    Returns:
        The box, in the route's precision.
    """
    maps = dict(route.steps)
    inputs = [maps[axis].inputs(*side) if axis in maps else side for axis, side in enumerate(box)]
    values = channel[tuple(slice(*side) for side in inputs)].astype(route.precision)
    for axis, mapping in route.steps:
        if bounds is not None and axis == route.separate_axis:
            values, bounds = _clipped(values, bounds, axis, inputs[axis]), None
        values = apply_along(values, axis, mapping.part(*box[axis]))
    if bounds is None:
        return values
    apart = route.separate_axis
    return _clipped(values, bounds, apart, inputs[0 if apart is None else apart])


def _clipped(
    values: Floats, bounds: tuple[NDArray[np.floating], NDArray[np.floating]], apart: int | None, rows: tuple[int, int]
) -> Floats:
    low, high = bounds if apart is None else [np.take(bound, range(*rows), axis=apart) for bound in bounds]
    clipped: Floats = np.clip(values, low, high, out=values)
    return clipped
