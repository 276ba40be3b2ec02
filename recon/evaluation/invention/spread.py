"""Whether samples differ where they are wrong: spread over samples against the error of their mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.evaluation.metrics import Volume

# of the spread, as a share of the volume's largest true value; the first bin takes all below, the last all above
EDGES = np.logspace(-4, 0, 17)
TISSUE = 0.05  # of the same; air, where nothing can be wrong, would make every spread look right


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over pixels from which curve and correlation follow; those of several volumes are added.

    Attributes:
        count: Pixels in each bin of the spread, ``(len(EDGES) - 1,)``.
        spread: Sum of the squared spread there.
        error: Sum of the squared error there.
        products: Sums of spread, error, their squares and their product over all pixels; for the correlation.
        n_samples: Of which the spread was taken.
    """

    count: NDArray[np.float64]
    spread: NDArray[np.float64]
    error: NDArray[np.float64]
    products: NDArray[np.float64]
    n_samples: int

    def __add__(self, other: "Moments") -> "Moments":
        """Put the pixels of two volumes together."""
        return Moments(
            count=self.count + other.count,
            spread=self.spread + other.spread,
            error=self.error + other.error,
            products=self.products + other.products,
            n_samples=self.n_samples,
        )


def pixel_spread(samples: Sequence[Volume]) -> NDArray[np.float64]:
    """Return the standard deviation over at least two samples (N - 1 in the denominator), ``(S, H, W)``."""
    return np.asarray(np.std(np.asarray(samples, np.float64), axis=0, ddof=1))


def moments(target: Volume, samples: Sequence[Volume]) -> Moments:
    """Gather spread and error of the mean over a volume's tissue, both as shares of its largest true value.

    Args:
        target: The truth, ``(S, H, W)``. Pixels above :data:`TISSUE` of its largest value count.
        samples: At least two, same shape and scale.
    """
    top = float(target.max()) or 1.0
    tissue = target > TISSUE * top
    spread = pixel_spread(samples)[tissue] / top
    error = np.abs(np.mean(np.asarray(samples, np.float64), axis=0) - target)[tissue] / top
    bins = np.clip(np.searchsorted(EDGES, spread, side="right") - 1, 0, len(EDGES) - 2)

    def summed(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.bincount(bins, weights, len(EDGES) - 1).astype(np.float64)

    products = [spread.sum(), error.sum(), (spread**2).sum(), (error**2).sum(), (spread * error).sum()]
    return Moments(
        count=summed(None),
        spread=summed(spread**2),
        error=summed(error**2),
        products=np.array(products),
        n_samples=len(samples),
    )


def calibration_curve(found: Moments, fewest: int = 20) -> list[tuple[float, float, int]]:
    """Return root mean square of spread and of error, and the pixels, of every bin with at least ``fewest`` pixels."""
    return [
        (float(np.sqrt(spread / count)), float(np.sqrt(error / count)), int(count))
        for count, spread, error in zip(found.count, found.spread, found.error, strict=True)
        if count >= fewest
    ]


def expected_error(spread: float, n_samples: int) -> float:
    """Return the error of the samples' mean if truth and samples came from one distribution of that spread.

    ``spread * sqrt(1 + 1 / N)``: the truth scatters about the true mean, and the mean of N samples does, too.
    """
    return spread * float(np.sqrt(1 + 1 / n_samples))


def error_to_spread(found: Moments) -> float:
    """Return the error's root mean square over the one expected of the spread; above 1 samples are too sure."""
    spread = expected_error(float(np.sqrt(found.spread.sum())), found.n_samples)
    return float(np.sqrt(found.error.sum()) / spread) if spread else float("inf")


def correlation(found: Moments) -> float:
    """Return Pearson's correlation of spread and absolute error over pixels; ``nan`` if either is constant."""
    n = found.count.sum()
    x, y, xx, yy, xy = found.products
    spread = (n * xx - x * x) * (n * yy - y * y)
    return float((n * xy - x * y) / np.sqrt(spread)) if spread > 0 else float("nan")
