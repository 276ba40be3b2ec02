"""What the networks learn from the fully sampled images: pure functions first, then their names in plans.

All compare magnitudes (or the real images of networks without phase), ``(B, H, W)``, on the scale of training.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from nnunet_kd.planning.json_blocks import check_choice, check_keys, check_number

WINDOW = 7
K1, K2 = 0.01, 0.03
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights from fine to coarse, [2] of ms_ssim
_SMALLEST = 1e-4  # contrast terms may be negative, and a power of 0 has no gradient

Supervision = Callable[[Tensor, Tensor], Tensor]


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference, a scalar."""
    return (prediction - target).abs().mean()


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Return ``1 - SSIM``, the mean over a batch, as fastMRI's loss: windows of 7 x 7, uniform, sample covariance [1].

    The data range is each slice's largest true value.

    Args:
        prediction: ``(B, H, W)``.
        target: Same shape.

    Returns:
        A scalar in [0, 2].

    Raises:
        ValueError: If shapes differ or the images are smaller than a window.

    References:
        [1] Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004,
            https://doi.org/10.1109/TIP.2003.819861

    Example:
        >>> image = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
        >>> round(float(ssim(image, image)), 6)
        0.0
    """
    luminance, contrast = _similarities(prediction, target, _data_range(target))
    return 1 - (luminance * contrast).mean()


def l1_ssim(prediction: Tensor, target: Tensor, share: float = 0.5) -> Tensor:
    """Return ``(1 - share) l1 + share (1 - SSIM)``.

    Args:
        prediction: ``(B, H, W)``.
        target: Same shape.
        share: Of the second term, in [0, 1].
    """
    return (1 - share) * l1(prediction, target) + share * ssim(prediction, target)


def ms_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Return ``1 - MS-SSIM`` [2]: contrast at up to five scales, each half the one before, luminance at the coarsest.

    Windows as in :func:`ssim`. Images that are too small for a window at the fifth scale have fewer, whose
    weights then add up to 1.

    Args:
        prediction: ``(B, H, W)``.
        target: Same shape.

    Raises:
        ValueError: If shapes differ or the images are smaller than a window.

    References:
        [2] Wang et al., Multiscale Structural Similarity for Image Quality Assessment, 2003,
            https://doi.org/10.1109/ACSSC.2003.1292216
    """
    sizes = [min(target.shape[-2:]) >> scale for scale in range(len(SCALES))]
    weights = [weight for weight, size in zip(SCALES, sizes, strict=True) if size >= WINDOW] or [1.0]
    data_range = _data_range(target)
    product = torch.ones(target.shape[0], device=target.device)
    for scale, weight in enumerate(weights):
        luminance, contrast = _similarities(prediction, target, data_range)
        is_coarsest = scale == len(weights) - 1
        similarity = (luminance * contrast if is_coarsest else contrast).mean(dim=(1, 2))
        product = product * similarity.clamp(min=_SMALLEST) ** (weight / sum(weights))
        if not is_coarsest:
            prediction, target = (avg_pool2d(image[:, None], 2)[:, 0] for image in (prediction, target))
    return 1 - product.mean()


def ms_ssim_l1(prediction: Tensor, target: Tensor, share: float = 0.84) -> Tensor:
    """Return ``(1 - share) l1 + share (1 - MS-SSIM)``.

    The share is that of [3], who weigh the L1 by a Gaussian of the coarsest scale; here every pixel counts alike.

    Args:
        prediction: ``(B, H, W)``.
        target: Same shape.
        share: Of the second term, in [0, 1].

    References:
        [3] Zhao et al., Loss Functions for Image Restoration With Neural Networks, 2017,
            https://arxiv.org/abs/1511.08861
    """
    return (1 - share) * l1(prediction, target) + share * ms_ssim(prediction, target)


def _data_range(target: Tensor) -> Tensor:
    largest = target.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, largest, torch.ones_like(largest))  # an empty slice has no range of its own


def _similarities(x: Tensor, y: Tensor, data_range: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM's factors at every window, ``(B, H - 6, W - 6)`` each: luminance, and contrast with structure."""
    if x.shape != y.shape or min(x.shape[-2:]) < WINDOW:
        raise ValueError(
            f"expected two images of the same shape, at least {WINDOW} x {WINDOW}, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    mean_x, mean_y, xx, yy, xy = avg_pool2d(torch.stack([x, y, x * x, y * y, x * y], dim=1), WINDOW, 1).unbind(1)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variances = sample * (xx - mean_x**2 + yy - mean_y**2)
    covariance = sample * (xy - mean_x * mean_y)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


# the names that plans may use, and what each takes beside the images
SUPERVISIONS: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "l1": (l1, ()),
    "ssim": (ssim, ()),
    "l1_ssim": (l1_ssim, ("share",)),
    "ms_ssim_l1": (ms_ssim_l1, ("share",)),
}


def build_supervision(loss: Mapping[str, Any], where: str) -> Supervision:
    """Return the loss that a configuration's ``loss`` names, with its settings.

    Args:
        loss: ``name`` and settings.
        where: How to name the object in messages.

    Raises:
        UsageError: For an unknown name or setting, or a share outside [0, 1].
    """
    check_choice(loss.get("name"), SUPERVISIONS, f"{where}, name")
    function, known = SUPERVISIONS[loss["name"]]
    check_keys(loss, ("name", *known), where)
    settings = {key: value for key, value in loss.items() if key != "name"}
    for key, value in settings.items():
        check_number(value, f"{where}, {key}", at_least=0, at_most=1)
    return partial(function, **settings)


def magnitude(image: Tensor) -> Tensor:
    """Return what is compared with a target: the modulus of a complex image, a real one as it is, in float32."""
    return image.abs() if image.is_complex() else image.float()
