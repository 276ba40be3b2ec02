"""Source formats: what ``nnunet_kd recon convert`` reads, one module each, imported when it is asked for."""

from importlib import import_module

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.source import SourceFormat

# name: module with FORMAT
FORMATS: dict[str, str] = {
    "fastmri": "nnunet_kd.recon.data.formats.fastmri",
    "calgary_campinas": "nnunet_kd.recon.data.formats.calgary_campinas",
    "kd_mri": "nnunet_kd.recon.data.formats.kd_mri",
    "hammernik": "nnunet_kd.recon.data.formats.hammernik",
    "magnitude": "nnunet_kd.recon.data.formats.magnitude",
    "ismrmrd": "nnunet_kd.recon.data.formats.ismrmrd",
}


def source_format(name: str) -> SourceFormat:
    """Return a format by its name.

    Raises:
        UsageError: If there is none of that name.

    Example:
        >>> source_format("magnitude").kspace
        'retrospective, magnitude-derived'
    """
    if name not in FORMATS:
        raise UsageError(f"unknown format '{name}', expected one of: {', '.join(FORMATS)}")
    found: SourceFormat = import_module(FORMATS[name]).FORMAT
    return found
