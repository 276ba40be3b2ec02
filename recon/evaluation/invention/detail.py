"""What a generative reconstruction adds to a careful one, and whether the truth has it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.evaluation.metrics import Volume


def injected_detail(sample: Volume, base: Volume) -> NDArray[np.float64]:
    """Return what the sample has that its base has not, with its sign: ``sample - base``, ``(S, H, W)``."""
    return np.asarray(sample, np.float64) - base


def sample_mean(samples: Sequence[Volume]) -> NDArray[np.float32]:
    """Return the mean over samples, ``(S, H, W)``."""
    return np.asarray(np.mean(samples, axis=0, dtype=np.float64), np.float32)


def detail_share(target: Volume, sample: Volume, base: Volume) -> float:
    """Return ``|sample - base| / |target|``: how much was added, as a share of the image's own energy (root)."""
    return _ratio(np.linalg.norm(injected_detail(sample, base)), np.linalg.norm(target.astype(np.float64)))


def detail_agreement(target: Volume, sample: Volume, base: Volume) -> float:
    """Return the cosine between what was added and what was missing.

    Added is ``sample - base``, missing ``target - base``. 1: the added detail is a part of the missing one. 0: it has
    nothing to do with the truth, as if invented. Below 0: it leads away. ``nan`` if nothing was added or missing.
    """
    added, missing = injected_detail(sample, base), injected_detail(target, base)
    return _ratio(np.vdot(added, missing), np.linalg.norm(added) * np.linalg.norm(missing))


def _ratio(part: Any, whole: Any) -> float:  # noqa: ANN401  # NumPy's scalars
    return float(part / whole) if whole else float("nan")
