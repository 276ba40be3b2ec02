"""Libraries of the extras, imported where they are needed."""

from importlib import import_module
from typing import Any

from nnunet_kd.errors import UsageError

_EXTRAS = {
    "openvino": "openvino",
    "onnxruntime": "onnx",
    "nncf": "int8",
    "surface_distance": "scores",
    "cc3d": "scores",
    "h5py": "recon",
    "piq": "recon",
    "sigpy.mri.app": "espirit",
    "ismrmrd": "ismrmrd",
}


def require(module: str) -> Any:  # noqa: ANN401  # the libraries have no types
    """Import a library that only some commands need.

    Args:
        module: Dotted name.

    Raises:
        UsageError: If it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        source = f"'nnunet-kd[{_EXTRAS[module]}]'" if module in _EXTRAS else library
        raise UsageError(f"expected the library {library}, got {error}; type: pip install {source}") from error
