"""Coil sensitivities by ESPIRiT, through SigPy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require

# SigPy's own default; the calibration region must hold several kernels
_KERNEL_WIDTH = 6


def espirit(kspace: Tensor, n_calibration: int = 24) -> Tensor:
    """Estimate one set of sensitivities per slice.

    No pixel is cut away where the estimate is uncertain, as SigPy would by default: squares add up to 1 everywhere. The
    first coil's sensitivity is real, so that the combined image has its phase.

    Args:
        kspace: Complex64, ``(..., C, H, W)``, fully sampled in its centre.
        n_calibration: Side of that centre, more than 6 and at most an axis.

    Returns:
        Complex64, as ``kspace``; zero for a slice that is zero.

    Raises:
        UsageError: If SigPy is missing or the centre too small.

    References:
        Uecker et al., ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI: where SENSE meets GRAPPA, 2014,
        https://doi.org/10.1002/mrm.24751
        SigPy, https://github.com/mikgroup/sigpy
    """
    library = require("sigpy.mri.app")
    width = min(n_calibration, *kspace.shape[-2:])
    if width <= _KERNEL_WIDTH:
        raise UsageError(
            f"sensitivities: espirit expects more than {_KERNEL_WIDTH} fully sampled central lines, got {width}; "
            "take the method lowres"
        )
    slices = kspace.detach().cpu().reshape(-1, *kspace.shape[-3:]).numpy()
    maps = np.stack([_of_slice(library, one, width) for one in slices])
    return torch.from_numpy(maps).reshape(kspace.shape).to(kspace)


def _of_slice(library: Any, kspace: Any, width: int) -> Any:  # noqa: ANN401  # a module and its arrays
    if not kspace.any():
        return np.zeros_like(kspace)
    app = library.EspiritCalib(kspace, calib_width=width, kernel_width=_KERNEL_WIDTH, crop=0, show_pbar=False)
    return np.asarray(app.run())
