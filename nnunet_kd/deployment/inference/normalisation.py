"""nnU-Net's intensity normalisations, each in place on one channel."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError

Channel = NDArray[np.float32]
Mask = NDArray[np.bool_]
_EPSILON = 1e-8


def z_score(image: Channel, mask: Mask | None, properties: Mapping[str, float]) -> None:  # noqa: ARG001  # one signature
    """Subtract the mean and divide by the standard deviation, of and in the mask if there is one."""
    if mask is None:
        mean, deviation = image.mean(), image.std()
        image -= mean
        image /= max(deviation, _EPSILON)
        return
    inside = image[mask]
    if inside.size:
        image[mask] = (inside - inside.mean()) / max(inside.std(), _EPSILON)


def ct(image: Channel, mask: Mask | None, properties: Mapping[str, float]) -> None:  # noqa: ARG001  # one signature
    """Clip to the training foreground's percentiles 0.5 and 99.5, then take its mean and standard deviation away."""
    np.clip(image, properties["percentile_00_5"], properties["percentile_99_5"], out=image)
    image -= properties["mean"]
    image /= max(properties["std"], _EPSILON)


def none(image: Channel, mask: Mask | None, properties: Mapping[str, float]) -> None:
    """Leave the channel as it is."""


def rescale_to_01(image: Channel, mask: Mask | None, properties: Mapping[str, float]) -> None:  # noqa: ARG001
    """Bring the channel's own range to [0, 1]."""
    image -= image.min()
    image /= np.clip(image.max(), a_min=_EPSILON, a_max=None)


def rgb_to_01(image: Channel, mask: Mask | None, properties: Mapping[str, float]) -> None:  # noqa: ARG001
    """Divide 8-bit colours by 255.

    Raises:
        UsageError: If there are values outside [0, 255].
    """
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 255:
        raise UsageError(f"expected colours from 0 to 255, got {low:g} to {high:g}; give 8-bit images")
    image /= 255.0


SCHEMES: dict[str, Callable[[Channel, Mask | None, Mapping[str, float]], None]] = {
    "ZScoreNormalization": z_score,
    "CTNormalization": ct,
    "NoNormalization": none,
    "RescaleTo01Normalization": rescale_to_01,
    "RGBTo01Normalization": rgb_to_01,
}
