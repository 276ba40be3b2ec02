"""How far a reconstruction contradicts what was measured: the residual on the sampled points of k-space."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_kd.recon.data.cases import Volume as CaseVolume
from nnunet_kd.recon.evaluation.metrics import Volume
from nnunet_kd.recon.physics.coils import combine, estimate_sensitivities
from nnunet_kd.recon.physics.fourier import kspace_to_image
from nnunet_kd.recon.physics.operators import forward
from nnunet_kd.recon.physics.sampling import apply_mask


def coil_maps(case: CaseVolume) -> torch.Tensor:
    """Return the sensitivities of a case's coils, ``(S, C, H, W)``: its own, estimated, or 1 for a single coil."""
    if case.sensitivities is not None:
        return torch.from_numpy(case.sensitivities)
    return estimate_sensitivities(torch.from_numpy(case.kspace))


def true_image(case: CaseVolume) -> NDArray[np.complex64]:
    """Return the complex image of fully sampled k-space, ``(S, H, W)``."""
    image = combine(kspace_to_image(torch.from_numpy(case.kspace)), coil_maps(case))
    return np.asarray(image.numpy(), np.complex64)


def with_true_phase(magnitude: Volume, truth: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Give magnitudes the phase of the true image, and what was cropped away the true image itself.

    Reconstructions are stored as magnitudes, mostly of the centre; k-space is of complex images of the whole matrix.
    So filled up, only errors of the magnitude count. A residual made this way is a lower bound of the network's own
    where its phase is worse than the true one.

    Args:
        magnitude: ``(S, h, w)``, of the centre.
        truth: ``(S, H, W)``.

    Returns:
        ``(S, H, W)``.
    """
    whole = truth.copy()
    top, left = ((full - part) // 2 for full, part in zip(truth.shape[1:], magnitude.shape[1:], strict=True))
    centre = (slice(None), slice(top, top + magnitude.shape[1]), slice(left, left + magnitude.shape[2]))
    whole[centre] = magnitude * np.exp(1j * np.angle(truth[centre]))
    return whole


def measured_residual(image: NDArray[Any], case: CaseVolume, mask: NDArray[np.float32]) -> float:
    """Return ``|M F S x - y| / |y|`` over the volume, y the measured samples.

    Args:
        image: Complex, ``(S, H, W)``, on the scale of the data.
        case: With k-space.
        mask: What was sampled, ``(H or 1, W or 1)``.
    """
    where = torch.from_numpy(np.ascontiguousarray(mask))
    measured = apply_mask(torch.from_numpy(case.kspace), where)
    predicted = forward(torch.from_numpy(image), where, coil_maps(case))
    size = float(torch.linalg.vector_norm(measured))
    return float(torch.linalg.vector_norm(predicted - measured)) / size if size else float("nan")
