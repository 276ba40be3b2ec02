"""KD-MRI's ``report.txt``: one line, whose plus-minus is two standard deviations."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.recon.evaluation.summary import STRUCTURE


def text_report(mean: Mapping[str, float], std: Mapping[str, float]) -> str:
    """Return ``NAME = mean +/- 2*std`` for every metric, by name, with four significant digits.

    Example:
        >>> text_report({"SSIM": 0.91234, "PSNR": 32.5}, {"SSIM": 0.02, "PSNR": 1.5})
        'PSNR = 32.5 +/- 3 SSIM = 0.9123 +/- 0.04'
    """
    return " ".join(f"{name} = {mean[name]:.4g} +/- {2 * std[name]:.4g}" for name in sorted(mean))


def write_text_report(summary: Mapping[str, Any], file: Path) -> None:
    """Write the line for a summary of :mod:`nnunet_kd.recon.evaluation.summary`, under a temporary name first."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text_report(summary["mean"][STRUCTURE], summary["std"][STRUCTURE]) + "\n", "utf-8")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
