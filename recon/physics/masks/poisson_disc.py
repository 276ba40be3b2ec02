"""Poisson-disc masks: random points that keep a distance, which grows with the distance from the centre."""

from functools import lru_cache

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nnunet_kd.recon.physics.masks.density import center_flags
from nnunet_kd.recon.physics.masks.settings import Draw

# at the corners points lie this much farther apart than at the centre, plus 1
_SLOPE = 2.0
# a few points more than wanted are thrown, then thinned: the count is exact, and a thinned mask keeps its distances
_SURPLUS = 1.05
# candidates of which the blocked ones are left out together
_AT_ONCE = 2048


def poisson_disc(shape: tuple[int, int], draw: Draw, rng: RandomState) -> NDArray[np.bool_]:
    """Sample ``round(H W / R)`` points that keep apart, with a fully sampled rectangle in the centre.

    Points are tried in random order and taken if no earlier one is nearer than that one's radius,
    ``scale * (1 + 2 d)``, d the distance from the centre as a share of the corner's. The scale that gives the count is
    searched once for a matrix and an acceleration, with a seed of its own; what is too many is then taken away at
    random. That search takes seconds for a matrix of 640x368, and every mask half of one.

    Args:
        shape: ``(H, W)``.
        draw: Its acceleration and centre count.
        rng: Source of randomness.

    Returns:
        ``(H, W)``.

    Raises:
        UsageError: If the centre alone has more points.

    References:
        Bridson, Fast Poisson Disk Sampling in Arbitrary Dimensions, 2007, https://doi.org/10.1145/1278780.1278807
        Vasanawala et al., Practical Parallel Imaging Compressed Sensing MRI, 2011,
        https://doi.org/10.1109/ISBI.2011.5872579
    """
    n_wanted = round(shape[0] * shape[1] / draw.acceleration)
    n_center = (draw.n_center(shape[0]), draw.n_center(shape[1]))
    center = center_flags(shape, n_center, n_wanted)
    scale = find_scale(shape, n_center, n_wanted)
    flags = throw(center, scale, rng)
    while flags.sum() < n_wanted:  # on small matrices the count varies by more than the surplus
        scale *= 0.9
        flags = throw(center, scale, rng)
    free = np.flatnonzero(flags & ~center)
    flags.reshape(-1)[rng.choice(free, size=int(flags.sum()) - n_wanted, replace=False)] = False
    return flags


def radii(shape: tuple[int, int], scale: float) -> NDArray[np.float64]:
    """Return how far from each point the next one must lie, in points, ``(H, W)``."""
    rows, columns = ((np.arange(n) - n // 2) / (n / 2) for n in shape)
    distance: NDArray[np.float64] = np.sqrt((rows[:, None] ** 2 + columns**2) / 2)
    return scale * (1 + _SLOPE * distance)


def throw(center: NDArray[np.bool_], scale: float, rng: RandomState) -> NDArray[np.bool_]:
    """Try all points beside the centre in random order; return those taken and the centre, ``(H, W)``."""
    height, width = center.shape
    radius = radii((height, width), scale)
    flags, blocked = center.copy(), center.copy()
    reach = int(np.ceil(radius.max()))
    grid = np.arange(-reach, reach + 1)
    squared = grid[:, None] ** 2 + grid**2
    order = rng.permutation(center.size)
    for start in range(0, order.size, _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        for index in some[~blocked.reshape(-1)[some]].tolist():
            y, x = divmod(index, width)
            if blocked[y, x]:
                continue
            flags[y, x] = True
            top, left = max(y - reach, 0), max(x - reach, 0)
            window = blocked[top : y + reach + 1, left : x + reach + 1]
            disc = squared[top - y + reach :, left - x + reach :][: window.shape[0], : window.shape[1]]
            window |= disc < radius[y, x] ** 2
    return flags


@lru_cache(maxsize=64)
def find_scale(shape: tuple[int, int], n_center: tuple[int, int], n_wanted: int) -> float:
    """Return the largest scale of radii found that gives a few points more than wanted."""
    center = center_flags(shape, n_center, n_wanted)
    n_needed = min(n_wanted * _SURPLUS, shape[0] * shape[1])
    # about r^2 / 0.9 points of the grid fall to each of a dense throw of radius r, which here is 1 to 3 scales
    spacing = float(np.sqrt(shape[0] * shape[1] / max(n_wanted, 1)))
    low, high = 0.2 * spacing, 0.9 * spacing
    for _ in range(7):
        middle = (low + high) / 2
        enough = throw(center, middle, RandomState(0)).sum() >= n_needed
        low, high = (middle, high) if enough else (low, middle)
    return low
