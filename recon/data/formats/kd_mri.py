"""KD-MRI's HDF5 layout (arXiv 2004.05319), read and written.

``{train|validation}/acc_{4x|5x|8x}/N.h5`` with ``volfs`` (fully sampled magnitude, each slice divided by its own
maximum), ``img_volus_{acc}`` and ``kspace_volus_{acc}`` (masked, origin in the corner, orthonormal), all ``(H, W, S)``,
or ``(H, W)`` for the knee, whose files are single slices. Retrospective: k-space is the transform of the magnitude.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import centre_crop, to_kspace
from nnunet_kd.recon.data.cases import ENDING, Volume, make_volume
from nnunet_kd.recon.data.dataset import MAGNITUDE_DERIVED
from nnunet_kd.recon.data.formats.source import (
    TRAIN,
    UNSPLIT,
    VAL,
    ReadOptions,
    SourceCase,
    SourceFormat,
    check_names,
    files_below,
    single,
)
from nnunet_kd.recon.data.hdf5 import dataset_of, opened, written

FULL, ZERO_FILLED, MASKED = "volfs", "img_volus_{}", "kspace_volus_{}"
_LAYOUT = "a folder with KD-MRI's train/acc_4x, validation/acc_4x, ... or one of these"
_PARTS = {"train": TRAIN, "validation": VAL}


def find(source: Path, options: ReadOptions) -> list[SourceCase]:
    """List the volumes of one acceleration; names are the part and the number, for both parts count from 0.

    Raises:
        UsageError: If there are none, or several accelerations without a choice.
    """
    by_acceleration: dict[str, list[Path]] = {}
    for file in files_below(source.resolve(), [ENDING]):
        folder = file.parent.name
        if folder.startswith("acc_"):
            by_acceleration.setdefault(folder.removeprefix("acc_"), []).append(file)
    if not by_acceleration:
        raise UsageError(f"expected {_LAYOUT}; found no folder acc_... with {ENDING} files in {source}")
    files = single(by_acceleration, "acceleration", "--acceleration", options.acceleration)
    return check_names([_case(file) for file in files], source, _LAYOUT)


def _case(file: Path) -> SourceCase:
    folder = file.parent.parent.name
    number = file.name.removesuffix(ENDING)
    name = f"{folder}_{number:>04}" if folder in _PARTS else number
    return SourceCase(name=name, files=(file,), part=_PARTS.get(folder, UNSPLIT))


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume: its magnitude is the target, and k-space the magnitude's centred transform.

    Raises:
        UsageError: If the key is missing or wrong; names file and key.
    """
    path = case.files[0]
    with opened(path) as file:
        stored = dataset_of(file, FULL, n_axes=(2, 3), kinds="f", path=path)
        images = slices_first(np.asarray(stored))
    kspace = to_kspace(images)
    target = images if options.crop is None else centre_crop(images, options.crop)
    return make_volume(case.name, kspace, target=target, source_format="kd_mri")


def slices_first(stored: NDArray[Any]) -> NDArray[Any]:
    """Return ``(S, H, W)`` for ``(H, W, S)`` or ``(H, W)``."""
    return stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)


def fixed_mask(cases: Sequence[SourceCase], options: ReadOptions) -> NDArray[np.float32]:  # noqa: ARG001
    """Read the one mask of all cases off their masked k-space.

    Returns:
        float32, ``(H, W)``, centred.

    Raises:
        UsageError: If the key is missing, or two files were sampled differently; names file and key.
    """
    first: NDArray[np.float32] | None = None
    for case in cases:
        path = case.files[0]
        key = MASKED.format(path.parent.name.removeprefix("acc_"))
        with opened(path) as file:
            stored = slices_first(np.asarray(dataset_of(file, key, n_axes=(2, 3), kinds="c", path=path)))
        mask = np.fft.fftshift((stored != 0).any(axis=0)).astype(np.float32)
        first = mask if first is None else first
        if mask.shape != first.shape or (mask != first).any():
            raise UsageError(
                f"expected the sampling of {cases[0].files[0]} in key '{key}' of {path}, found another; "
                "type --sampling to draw masks instead"
            )
    if first is None:
        raise UsageError(f"expected {_LAYOUT}; found no case")
    return first


def write(path: Path, images: NDArray[Any], mask: NDArray[Any], acceleration: str) -> None:
    """Write a volume in KD-MRI's layout; the file gets its name when it is whole.

    Args:
        path: The file.
        images: Magnitude, ``(S, H, W)``; each slice is divided by its own maximum.
        mask: 1 where sampled, centred, ``(W,)`` or ``(H, W)``.
        acceleration: As the keys have it, such as ``4x``.

    Raises:
        UsageError: If a slice is zero all over.
    """
    largest = np.abs(images).max(axis=(1, 2), keepdims=True).astype(np.float64)
    if not largest.all():
        raise UsageError(f"expected a signal in every slice of {path.name}, all is 0 in slice {int(largest.argmin())}")
    full = np.abs(images) / largest
    # double precision and the origin in the corner, as the published files have it
    corner = np.fft.ifftshift(np.broadcast_to(mask, full.shape[1:]))
    kspace = np.fft.fft2(full, norm="ortho") * corner
    stored = {FULL: full, ZERO_FILLED: np.abs(np.fft.ifft2(kspace, norm="ortho")), MASKED: kspace}
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        for key, array in stored.items():
            file[key.format(acceleration)] = np.moveaxis(array, 0, -1)


FORMAT = SourceFormat(
    name="kd_mri",
    summary="KD-MRI's HDF5 files (volfs, kspace_volus_4x, ...)",
    layout=_LAYOUT,
    kspace=MAGNITUDE_DERIVED,
    find=find,
    read=read,
    options=("acceleration", "crop"),
    fixed_mask=fixed_mask,
    reference="https://arxiv.org/abs/2004.05319",
)
