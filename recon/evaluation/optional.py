"""Libraries that only some scores need."""

from typing import Any

from nnunet_kd.errors import UsageError


def load_piq() -> Any:  # noqa: ANN401  # a module
    """Return the library of image quality scores.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import piq
    except ImportError as error:
        raise UsageError(
            "expected the library piq for HaarPSI, GMSD and VIF, found none; type: pip install 'nnunet-kd[recon]'"
        ) from error
    return piq
