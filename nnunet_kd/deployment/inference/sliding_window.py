"""Overlapping tiles over a volume, weighted by a Gaussian, as nnU-Net lays them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain, combinations, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.cropping import as_slices
from nnunet_kd.errors import UsageError

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
Tile = tuple[int | slice, ...]
GAUSSIAN_PEAK = 10.0
_SLAB = 2**20  # voxels
GAUSSIAN_SIGMA = 1 / 8


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How tiles are laid and summed; the defaults are those of ``nnUNetv2_predict --disable_tta``.

    Attributes:
        step_size: Distance of tiles at most, as a share of the patch, in (0, 1].
        use_gaussian: Whether the middle of a tile counts more than its border.
        mirror_axes: Axes of the patch over whose mirror images logits are averaged, each of their combinations once.
        storage: What sums are kept in: ``float16`` rounds as nnU-Net does, ``float32`` is more accurate and takes
            twice the memory.

    Raises:
        UsageError: If ``step_size`` is out of range.
    """

    step_size: float = 0.5
    use_gaussian: bool = True
    mirror_axes: tuple[int, ...] = ()
    storage: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        if not 0 < self.step_size <= 1:
            raise UsageError(f"expected a step size above 0 and at most 1, got {self.step_size}; type: -step_size 0.5")


def tile_starts(length: int, patch: int, step_size: float) -> list[int]:
    """Return where tiles begin along one axis: first and last flush, the others evenly between.

    Args:
        length: Voxels of the axis, at least ``patch``.
        patch: Voxels of a tile.
        step_size: Largest distance, as a share of the patch.

    Example:
        >>> tile_starts(110, 64, 0.5)
        [0, 23, 46]
    """
    n_tiles = int(np.ceil((length - patch) / (patch * step_size))) + 1
    distance = (length - patch) / max(n_tiles - 1, 1)
    # numpy rounds halves to even, as nnU-Net's own steps
    return [int(np.round(distance * index)) for index in range(n_tiles)]


def tiles(shape: Sequence[int], patch_size: Sequence[int], step_size: float) -> Iterator[Tile]:
    """Yield the index of every tile in nnU-Net's order; a 2-D patch goes through the slices of the first axis."""
    n_slices = len(shape) - len(patch_size)
    starts = [tile_starts(n, patch, step_size) for n, patch in zip(shape[n_slices:], patch_size, strict=True)]
    for position in product(*(range(n) for n in shape[:n_slices]), *starts):
        corner = position[n_slices:]
        sides = (slice(low, low + patch) for low, patch in zip(corner, patch_size, strict=True))
        yield (slice(None), *position[:n_slices], *sides)


@lru_cache(maxsize=2)
def gaussian_weights(patch_size: tuple[int, ...]) -> NDArray[np.float16]:
    """Return the weight of each voxel of a tile, 10 in the middle, rounded to half precision as in nnU-Net.

    Weights that half precision rounds to zero take the smallest other weight, so that no voxel divides by zero.
    """
    weights = reduce(np.multiply.outer, [_gaussian(n) for n in patch_size])
    weights /= weights.max() / GAUSSIAN_PEAK
    # by way of single precision, as PyTorch rounds
    rounded = weights.astype(np.float32).astype(np.float16)
    rounded[rounded == 0] = rounded[rounded != 0].min()
    return rounded


def _gaussian(length: int) -> NDArray[np.float64]:
    """Return what ``scipy.ndimage.gaussian_filter1d`` makes of a peak in the middle; importing scipy takes longer."""
    sigma = length * GAUSSIAN_SIGMA
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 / (sigma * sigma) * offsets**2)
    around = np.arange(length) - length // 2
    inside = np.abs(around) <= radius
    return np.where(inside, (kernel / kernel.sum())[np.where(inside, around + radius, 0)], 0)


def pad_to_patch(data: NDArray[np.float32], patch_size: Sequence[int]) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Pad with zeros on both sides where the image is smaller than the patch.

    Args:
        data: ``(C, x, y, z)``.
        patch_size: Of the last axes.

    Returns:
        The array, ``data`` itself where nothing is missing, and the index of ``data`` in it.
    """
    wanted = (*data.shape[: data.ndim - len(patch_size)], *patch_size)
    missing = [max(want - have, 0) for want, have in zip(wanted, data.shape, strict=True)]
    inside = as_slices([(gap // 2, gap // 2 + have) for gap, have in zip(missing, data.shape, strict=True)])
    if not any(missing):
        return data, inside
    return np.pad(data, [(gap // 2, gap - gap // 2) for gap in missing]), inside


def predict_logits(
    data: NDArray[np.float32],
    network: Network,
    patch_size: Sequence[int],
    n_outputs: int,
    settings: WindowSettings,
) -> NDArray[np.floating]:
    """Run a network over a volume.

    Beside ``data`` and the result it holds one sum of weights and a few tiles.

    Args:
        data: Preprocessed, ``(C, x, y, z)``.
        network: From ``(1, C, *patch)`` to logits ``(1, n_outputs, *patch)``.
        patch_size: Two or three numbers.
        n_outputs: Channels that the network returns.
        settings: Of tiles and sums.

    Returns:
        Logits ``(n_outputs, x, y, z)`` of type ``settings.storage``.

    Raises:
        UsageError: If logits are too large for ``settings.storage``, or no numbers.
    """
    padded, inside = pad_to_patch(data, patch_size)
    flips = mirrorings(settings.mirror_axes, len(patch_size))
    weights = gaussian_weights(tuple(patch_size)) if settings.use_gaussian else np.ones(patch_size, dtype=np.float16)
    wide_weights = weights.astype(np.float32)
    total = np.zeros((n_outputs, *padded.shape[1:]), dtype=settings.storage)
    weight_sum = np.zeros(padded.shape[1:], dtype=settings.storage)
    with np.errstate(over="ignore"):  # looked for below
        for tile in tiles(padded.shape[1:], patch_size, settings.step_size):
            logits = _mirrored(network, np.ascontiguousarray(padded[tile])[None], flips)[0]
            _add(total, tile, logits * wide_weights)
            _add(weight_sum, tile[1:], wide_weights)
        for channel in total:
            _divide(channel, weight_sum)
    result = total[(slice(None), *inside[1:])]
    if not np.isfinite(result).all():
        raise UsageError(
            f"the network returned values that are too large for {settings.storage} or no numbers; check the image"
        )
    return result


def mirrorings(axes: Sequence[int], n_axes: int) -> list[tuple[int, ...]]:
    """Return the axes of ``(B, C, *patch)`` to flip in each pass, nothing in the first.

    Raises:
        UsageError: If an axis is none of the patch.

    Example:
        >>> mirrorings((0, 1), 3)
        [(), (2,), (3,), (2, 3)]
    """
    if any(not 0 <= axis < n_axes for axis in axes):
        raise UsageError(f"expected axes 0 to {n_axes - 1} to mirror, got {list(axes)}; predict with mirroring off")
    shifted = [axis + 2 for axis in axes]
    return list(chain.from_iterable(combinations(shifted, n) for n in range(len(shifted) + 1)))


def _mirrored(network: Network, patch: NDArray[np.float32], flips: list[tuple[int, ...]]) -> NDArray[np.float32]:
    total = network(patch)
    if len(flips) == 1:
        return total
    total = np.array(total)
    for axes in flips[1:]:
        total += np.flip(network(np.ascontiguousarray(np.flip(patch, axes))), axes)
    total /= len(flips)
    return total


def _add(total: NDArray[np.floating], tile: Tile, values: NDArray[np.float32]) -> None:
    # the sum is taken in single precision and rounded once, as PyTorch does; numpy's own half loop is slow
    total[tile] = total[tile].astype(np.float32) + values


def _divide(channel: NDArray[np.floating], weight_sum: NDArray[np.floating]) -> None:
    # slab by slab, as single precision of the whole channel would double the memory
    n_slices = max(1, _SLAB // max(1, channel[0].size))
    for first in range(0, len(channel), n_slices):
        slab = slice(first, first + n_slices)
        channel[slab] = channel[slab].astype(np.float32) / weight_sum[slab].astype(np.float32)
