"""The scan of an image by Fourier ring correlation: which regions show what the truth does not have.

After sFRC of the FDA's researchers [1]. Theirs are the Hann window, the correlation of patches ring by ring, the
constant threshold, and marking a patch whose correlation crosses it below a frequency. Ours are the sizes below, that
a patch must also hold added energy (which replaces their threshold of air and spares what is merely blurred), and the
step from patches to pixels.

References:
    [1] Kc, Zeng, Soni and Badano, sFRC for assessing hallucinations in medical image restoration, 2026,
        https://arxiv.org/abs/2603.04673; https://github.com/DIDSR/sfrc
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.evaluation.invention.ring_correlation import correlate
from nnunet_kd.recon.evaluation.metrics import Volume


@dataclass(frozen=True, kw_only=True)
class ScanSettings:
    """How an image is scanned.

    Attributes:
        patch: Side of the patches in pixels, even, at least 8. Theirs: 48 for MR images, 64 for CT.
        stride: Pixels between patches.
        threshold: Of the correlation. Theirs: 0.75 for MR images, 0.5 for CT.
        cutoff: Patches whose correlation falls below the threshold before this share of Nyquist are suspect. Theirs
            was set by annotated hallucinations of each network: 0.16 and 0.17 for MR images.
        floor: Least root mean square of added detail, as a share of the volume's largest true value.
    """

    patch: int = 24
    stride: int = 6
    threshold: float = 0.75
    cutoff: float = 0.5
    floor: float = 0.03

    def __post_init__(self) -> None:
        if self.patch < 8 or self.patch % 2:
            raise UsageError(f"expected an even number from 8 for --patch, got {self.patch}")
        if not 1 <= self.stride <= self.patch // 2:
            raise UsageError(f"expected --stride from 1 to half of --patch ({self.patch // 2}), got {self.stride}")
        for name in ("threshold", "cutoff", "floor"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"expected a number above 0 and up to 1 for --{name}, got {getattr(self, name)}")


class Scan(NamedTuple):
    """What a scan of a volume found.

    Attributes:
        marked: Pixels whose detail the truth does not support, ``(S, H, W)``.
        crossing: Mean over the patches about a pixel of the crossing frequency, a share of Nyquist, ``(S, H, W)``.
        patches: Share of suspect patches among those that were scanned.
    """

    marked: NDArray[np.bool_]
    crossing: NDArray[np.float64]
    patches: float


def scan(target: Volume, prediction: Volume, settings: ScanSettings | None = None) -> Scan:
    """Scan a volume slice by slice.

    A pixel is marked if it lies in the middle half of a suspect patch: the window leaves little of the rest.

    Args:
        target: The truth, ``(S, H, W)``.
        prediction: Same shape and scale.
        settings: How.

    Raises:
        UsageError: If a slice is smaller than a patch.
    """
    settings = settings or ScanSettings()
    check_size(target.shape, settings)
    floor = settings.floor * float(target.max())
    found = [_scan_slice(a, b, settings, floor) for a, b in zip(target, prediction, strict=True)]
    marked, crossing, shares = zip(*found, strict=True)
    return Scan(marked=np.stack(marked), crossing=np.stack(crossing), patches=float(np.mean(shares)))


def check_size(shape: tuple[int, ...], settings: ScanSettings) -> None:
    """Refuse slices that no patch fits into.

    Raises:
        UsageError: One line.
    """
    if min(shape[-2:]) < settings.patch:
        raise UsageError(f"expected slices of at least --patch {settings.patch} pixels, got {shape[-2:]}; type less")


def _corners(length: int, settings: ScanSettings) -> NDArray[np.intp]:
    """Return where patches begin; the last one ends at the border."""
    last = length - settings.patch
    return np.unique(np.append(np.arange(0, last + 1, settings.stride), last))


def _scan_slice(
    target: NDArray[Any], prediction: NDArray[Any], settings: ScanSettings, floor: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64], float]:
    size, quarter = settings.patch, settings.patch // 4
    tops, lefts = (_corners(length, settings) for length in target.shape)
    places = [(top, left) for top in tops for left in lefts]
    cut = [np.stack([image[t : t + size, q : q + size] for t, q in places]) for image in (target, prediction)]
    found = correlate(cut[0].astype(np.float32), cut[1].astype(np.float32), settings.threshold)
    suspect = (found.crossing < settings.cutoff) & (found.added > floor)
    marked, total, count = np.zeros(target.shape, bool), np.zeros(target.shape), np.zeros(target.shape)
    for (top, left), frequency, is_suspect in zip(places, found.crossing, suspect, strict=True):
        whole = slice(top, top + size), slice(left, left + size)
        total[whole] += frequency
        count[whole] += 1
        if is_suspect:
            marked[top + quarter : top + size - quarter, left + quarter : left + size - quarter] = True
    return marked, total / count, float(suspect.mean())
