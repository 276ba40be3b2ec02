"""From logits to labels on the image's grid, without ever holding all classes at full size."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.cropping import as_slices
from nnunet_kd.deployment.inference.interpolation import Floats
from nnunet_kd.deployment.inference.resampling import (
    SLAB_BYTES,
    Box,
    Route,
    resample,
    resample_box,
    slabs,
    value_bounds,
)


def label_type(foreground_labels: Sequence[int]) -> type[np.uint8] | type[np.uint16]:
    """Return nnU-Net's type of label maps: one byte below 255 foreground labels."""
    return np.uint8 if len(foreground_labels) < 255 else np.uint16


def write_labels(
    logits: Floats,
    route: Route,
    out: NDArray[np.unsignedinteger],
    regions_class_order: Sequence[int] | None = None,
    slab_bytes: int = SLAB_BYTES,
) -> None:
    """Resample logits and write the label of each voxel.

    One class of one slab is resampled at a time, so that about four slabs are held beside input and output. Where
    interpolation is linear and all voxels that a stretch of the result depends on are background, so is the stretch,
    and nothing is computed there.

    Args:
        logits: ``(C, x, y, z)``. Half precision is kept in between, as nnU-Net does.
        route: From the logits' grid to the image's crop.
        out: Written to, of the route's shape.
        regions_class_order: Label that each region writes where its logit is positive, later ones over earlier ones;
            ``None`` for the largest logit's index.
        slab_bytes: Bytes of a slab of one class in double precision.
    """
    bounds = [value_bounds(channel, route) for channel in logits]
    foreground = may_be_foreground(logits, has_regions=regions_class_order is not None) if route.linear else None
    for start, stop in slabs(route.shape, n_bytes=slab_bytes):
        box = [(start, stop), (0, route.shape[1]), (0, route.shape[2])]
        part = out[start:stop]
        part[...] = 0
        found = box if foreground is None else foreground_box(foreground, route, box)
        if not found:
            continue
        values = (_rounded(resample_box(x, route, found, b), logits) for x, b in zip(logits, bounds, strict=True))
        labels = _largest(values) if regions_class_order is None else _painted(values, regions_class_order)
        out[as_slices(found)] = labels


def may_be_foreground(logits: Floats, *, has_regions: bool) -> NDArray[np.bool_]:
    """Return where a voxel of the logits' own grid is not background.

    Args:
        logits: ``(C, x, y, z)``.
        has_regions: Whether a positive logit is a region, or else the largest wins and the first is background.
    """
    found = np.zeros(logits.shape[1:], dtype=bool)
    for row, hits in enumerate(found):
        values = logits[:, row].astype(np.float32)
        above: NDArray[np.bool_] = values > 0 if has_regions else values[1:] > values[0]
        np.logical_or.reduce(above, axis=0, out=hits)
    return found


def foreground_box(foreground: NDArray[np.bool_], route: Route, box: Box) -> list[tuple[int, int]]:
    """Shrink a box of the result to what depends on foreground; an empty list where nothing does.

    Args:
        foreground: On the grid before, ``(x, y, z)``.
        route: Linear.
        box: Half-open stretches of the result's axes.
    """
    maps = dict(route.steps)
    low, high = maps[0].inputs(*box[0]) if 0 in maps else box[0]
    plane: NDArray[np.bool_] = np.logical_or.reduce(foreground[low:high], axis=0)
    shrunk = [tuple(box[0])]
    for axis, along in ((1, plane.any(axis=1)), (2, plane.any(axis=0))):
        hits = np.flatnonzero(along)
        if not hits.size:
            return []
        side = (int(hits[0]), int(hits[-1]) + 1)
        shrunk.append(maps[axis].outputs(*side) if axis in maps else side)
    return [(start, stop) for start, stop in shrunk] if all(start < stop for start, stop in shrunk) else []


def probabilities(logits: Floats, route: Route, *, has_regions: bool) -> NDArray[np.float32]:
    """Resample logits and return the probability of each class or region.

    This holds all classes at full size: it is the result.

    Args:
        logits: ``(C, x, y, z)``.
        route: From the logits' grid to the image's crop.
        has_regions: Sigmoid per region, or else softmax over classes.

    Returns:
        ``(C, *route.shape)``.
    """
    values = resample(logits, route).astype(np.float32)
    for start, stop in slabs(route.shape, n_bytes=SLAB_BYTES // len(values)):
        part = values[:, start:stop]
        if has_regions:
            # by way of the hyperbolic tangent, which does not overflow
            part[...] = 0.5 + 0.5 * np.tanh(0.5 * part)
        else:
            np.exp(part - part.max(axis=0), out=part)
            part /= part.sum(axis=0)
    return values


def _rounded(values: Floats, logits: Floats) -> Floats:
    # back to single precision, in which numpy compares many times faster than in half
    return values.astype(np.float16).astype(np.float32) if logits.dtype == np.float16 else values.astype(logits.dtype)


def _largest(values: Iterator[Floats]) -> NDArray[np.uint16]:
    best = next(values)
    labels = np.zeros(best.shape, dtype=np.uint16)
    for index, value in enumerate(values, start=1):
        # strictly: the first of equals counts, as with argmax
        labels[value > best] = index
        np.maximum(best, value, out=best)
    return labels


def _painted(values: Iterator[Floats], order: Sequence[int]) -> NDArray[np.uint16]:
    first = next(values)
    painted = np.where(first > 0, order[0], 0).astype(np.uint16)
    for value, label in zip(values, order[1:], strict=True):
        painted[value > 0] = label
    return painted
