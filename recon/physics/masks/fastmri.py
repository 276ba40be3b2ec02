"""fastMRI's masks of lines, the same for the same seed as those of the package fastmri 0.3.0 (``data/subsample.py``).

Written from its description; https://github.com/facebookresearch/fastMRI, MIT licence. Each function returns which of
``n`` lines are sampled, the fully sampled centre included.
"""

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks.settings import Draw

Lines = NDArray[np.bool_]


def center_lines(n: int, n_center: int) -> Lines:
    """Return the central lines; where they cannot lie evenly about ``n // 2``, they lie as in fastMRI."""
    lines = np.zeros(n, dtype=bool)
    start = (n - n_center + 1) // 2
    lines[start : start + n_center] = True
    return lines


def random_lines(n: int, draw: Draw, rng: RandomState) -> Lines:
    """Sample each line beside the centre by itself, so that ``n / acceleration`` are expected in all."""
    n_center = draw.n_center(n)
    # a centre larger than that leaves nothing to draw; the random numbers are drawn all the same
    rest = max(n - n_center, 1)
    probability = (n / draw.acceleration - n_center) / rest
    return center_lines(n, n_center) | (rng.uniform(size=n) < probability)


def equispaced(n: int, draw: Draw, rng: RandomState) -> Lines:
    """Sample every R-th line; the centre comes on top, so that the true acceleration is lower."""
    offset = rng.randint(0, high=draw.step()) if draw.offset is None else draw.offset
    lines = center_lines(n, draw.n_center(n))
    lines[offset :: draw.step()] = True
    return lines


def equispaced_fraction(n: int, draw: Draw, rng: RandomState) -> Lines:
    """Sample about every R'-th line, R' such that about ``n / acceleration`` are sampled with the centre.

    R' need not be whole, so that the lines are only nearly equally spaced, as in the public multi-coil data:
    https://github.com/facebookresearch/fastMRI/issues/54

    Raises:
        UsageError: If the centre alone has as many lines.
    """
    n_center = draw.n_center(n)
    if n_center * draw.acceleration >= n:
        raise UsageError(
            f"sampling: {n_center} central of {n} lines leave none for acceleration {draw.acceleration:g}; "
            "choose a smaller center_fraction"
        )
    step = draw.acceleration * (n_center - n) / (n_center * draw.acceleration - n)
    offset = rng.randint(0, high=round(step)) if draw.offset is None else draw.offset
    lines = center_lines(n, n_center)
    lines[np.around(np.arange(offset, n - 1, step)).astype(int)] = True
    return lines


def magic(n: int, draw: Draw, rng: RandomState) -> Lines:
    """Sample every R-th line, shifted between both halves so that no sample is another's conjugate.

    References:
        Defazio, Offset Sampling Improves Deep Learning based Accelerated MRI Reconstructions by Exploiting Symmetry,
        2019, https://arxiv.org/abs/1912.01101
    """
    return center_lines(n, draw.n_center(n)) | _offset_lines(n, draw.step(), draw.offset, rng)


def magic_fraction(n: int, draw: Draw, rng: RandomState) -> Lines:
    """As :func:`magic`, with a step such that about ``n / acceleration`` lines are sampled with the centre.

    Where the centre alone has as many, it is cut to that and nothing is added; fastMRI's own code ends in an error
    there.
    """
    n_wanted = round(n / draw.acceleration)
    n_center = max(min(draw.n_center(n), n_wanted), 1)
    lines = center_lines(n, n_center)
    if n_wanted <= n_center:
        return lines
    return lines | _offset_lines(n, round(n / (n_wanted - n_center)), draw.offset, rng)


def _offset_lines(n: int, step: int, offset: int | None, rng: RandomState) -> Lines:
    if offset is None:
        offset = int(rng.randint(0, high=step))
    positive, negative = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
    half = np.zeros((n + 1) // 2, dtype=bool)
    other = np.zeros(n - (n + 1) // 2, dtype=bool)
    half[positive::step] = True
    other[negative::step] = True
    return np.fft.fftshift(np.concatenate([half, other[::-1]]))
