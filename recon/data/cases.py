"""Case files: k-space and target of one volume, in fastMRI's HDF5 layout.

A file holds ``kspace`` complex64 ``(S, H, W)`` or ``(S, C, H, W)``, the target ``reconstruction_esc`` (single coil) or
``reconstruction_rss`` float32 ``(S, h, w)`` where there is one, ``mask`` where the volume was sampled prospectively,
``sensitivities``, ``ismrmrd_header`` and attributes; a file of fastMRI's is one as it is
(https://github.com/facebookresearch/fastMRI, ``fastmri/data/README.md``).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.case_header import (
    ENDING,
    HEADER,
    KSPACE,
    MASK,
    SENSITIVITIES,
    CaseHeader,
    header_of,
    read_header,
    stored_padding,
)
from nnunet_kd.recon.data.hdf5 import opened, written

__all__ = [
    "ENDING",
    "CaseHeader",
    "Volume",
    "check_values",
    "make_volume",
    "read_header",
    "read_volume",
    "write_volume",
]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A case with its arrays.

    Attributes:
        header: What it is; shapes there are those of the whole file.
        kspace: complex64, ``(S, C, H, W)``, C = 1 for a single coil; centred.
        target: float32, ``(S, h, w)``, cropped about the centre.
        mask: float32, ``(W,)`` or ``(H, W)``, 1 where sampled.
        sensitivities: complex64, ``(S, C, H, W)``.
    """

    header: CaseHeader
    kspace: NDArray[np.complex64] = field(repr=False)
    target: NDArray[np.float32] | None = field(default=None, repr=False)
    mask: NDArray[np.float32] | None = field(default=None, repr=False)
    sensitivities: NDArray[np.complex64] | None = field(default=None, repr=False)


def make_volume(
    name: str,
    kspace: NDArray[Any],
    *,
    patient: str = "",
    target: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    sensitivities: NDArray[Any] | None = None,
    **attributes: Any,  # noqa: ANN401  # what HDF5 stores as an attribute
) -> Volume:
    """Put a case together from its arrays; the header follows from them.

    Args:
        name: Of the case.
        kspace: Complex, ``(S, H, W)`` for a single coil or ``(S, C, H, W)``; centred.
        patient: Whose; the name by default.
        target: ``(S, h, w)``.
        mask: ``(W,)`` or ``(H, W)``.
        sensitivities: ``(S, C, H, W)``.
        **attributes: Stored beside; ``padding`` as a pair of columns, the target's ``max`` is computed.
    """
    single = kspace.ndim == 3
    kspace = (kspace[:, None] if single else kspace).astype(np.complex64, copy=False)
    if target is not None:
        target = target.astype(np.float32, copy=False)
        attributes = {"max": float(target.max()), **attributes}
    n_slices, n_coils, height, width = kspace.shape
    header = CaseHeader(
        name=name,
        n_slices=n_slices,
        n_coils=n_coils,
        matrix=(height, width),
        single_coil=single,
        patient=patient or name,
        target_shape=None if target is None else (target.shape[1], target.shape[2]),
        padding=stored_padding(attributes),
        mask_shape=None if mask is None else mask.shape,
        has_sensitivities=sensitivities is not None,
        attributes=attributes,
    )
    return Volume(
        header=header,
        kspace=kspace,
        target=target,
        mask=None if mask is None else mask.astype(np.float32),
        sensitivities=None if sensitivities is None else sensitivities.astype(np.complex64, copy=False),
    )


def read_volume(path: Path, slices: slice | int | None = None) -> Volume:
    """Read a case, or some of its slices, with their values checked.

    Args:
        path: The file.
        slices: Which; all by default. The axis stays for a single one.

    Raises:
        UsageError: As :func:`read_header`, or if values are not finite or a slice is zero all over; names the first.
    """
    chosen = slice(slices, slices + 1 or None) if isinstance(slices, int) else slices or slice(None)
    with opened(path) as file:
        header = header_of(file, path)
        kspace = np.asarray(file[KSPACE][chosen]).astype(np.complex64, copy=False)
        target = np.asarray(file[header.target_key][chosen], np.float32) if header.has_target else None
        mask = np.asarray(file[MASK], np.float32) if header.has_mask else None
        sensitivities = np.asarray(file[SENSITIVITIES][chosen], np.complex64) if header.has_sensitivities else None
    volume = Volume(
        header=header,
        kspace=kspace[:, None] if header.single_coil else kspace,
        target=target,
        mask=None if mask is None else np.where(np.isfinite(mask), mask != 0, mask).astype(np.float32),
        sensitivities=sensitivities,
    )
    check_values(volume, str(path), first=range(header.n_slices)[chosen].start)
    return volume


def check_values(volume: Volume, where: str, first: int = 0) -> None:
    """Refuse a volume that cannot be reconstructed.

    Args:
        volume: The volume.
        where: How to name it in messages.
        first: Number of its first slice.

    Raises:
        UsageError: If values are not finite, a slice of k-space is zero all over, or nothing is sampled; one line.
    """
    arrays = {
        KSPACE: volume.kspace,
        volume.header.target_key: volume.target,
        MASK: volume.mask,
        SENSITIVITIES: volume.sensitivities,
    }
    for key, array in arrays.items():
        if array is not None and not np.isfinite(array).all():
            raise UsageError(f"expected finite numbers in key '{key}' of {where}, found NaN or infinity")
    empty = [first + number for number, one in enumerate(volume.kspace) if not one.any()]
    if empty:
        numbers = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise UsageError(f"expected a signal in every slice of key '{KSPACE}' of {where}, all is 0 in slice {numbers}")
    if volume.mask is not None and not volume.mask.any():
        raise UsageError(f"expected sampled positions in key '{MASK}' of {where}, all is 0")


def write_volume(path: Path, volume: Volume) -> None:
    """Write a case; the file gets its name when it is whole.

    Args:
        path: The file, ``.h5``.
        volume: What to write; k-space as ``(S, H, W)`` where its header says single coil.

    Raises:
        UsageError: As :func:`check_values`, before anything is written.
    """
    check_values(volume, str(path))
    header = volume.header
    with written(path) as file:
        file[KSPACE] = volume.kspace[:, 0] if header.single_coil else volume.kspace
        for key, array in (
            (header.target_key, volume.target),
            (MASK, volume.mask),
            (SENSITIVITIES, volume.sensitivities),
        ):
            if array is not None:
                file[key] = array
        if header.ismrmrd_header:
            file[HEADER] = header.ismrmrd_header
        for key, value in header.attributes.items():
            file.attrs[key] = value
        file.attrs["patient_id"] = header.patient
        if header.padding is not None:
            file.attrs["padding"] = np.asarray(header.padding)
