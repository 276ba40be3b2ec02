"""The multi-coil knee set of Hammernik et al. 2018: MATLAB files, one per slice.

``SEQUENCE/PATIENT/rawdata{slice}.mat`` with ``rawdata`` ``(H, W, C)``, and ``espirit{slice}.mat`` beside it with
``sensitivities`` ``(H, W, C)`` and ``reference`` ``(H, W)``, as the authors' program reads them
(https://github.com/VLOGroup/mri-variationalnetwork, ``mridata.py``; doi 10.1002/mrm.26977). Their transform is centred
and orthonormal; so is ours.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import centre_crop
from nnunet_kd.recon.data.cases import Volume, make_volume
from nnunet_kd.recon.data.dataset import MEASURED
from nnunet_kd.recon.data.formats.mat_files import read_mat
from nnunet_kd.recon.data.formats.source import ReadOptions, SourceCase, SourceFormat, check_names, files_below

_LAYOUT = "a folder with SEQUENCE/PATIENT/rawdata1.mat, espirit1.mat, ..."
_NAME = re.compile(r"rawdata(\d+)\.mat", re.IGNORECASE)


def find(source: Path, options: ReadOptions) -> list[SourceCase]:  # noqa: ARG001  # as all formats have it
    """List the volumes: all slices in one folder are one patient's, in the order of their numbers.

    Raises:
        UsageError: If there are none.
    """
    source = source.resolve()
    numbered: dict[Path, list[tuple[int, Path]]] = {}
    for file in files_below(source, [".mat"]):
        if match := _NAME.fullmatch(file.name):
            numbered.setdefault(file.parent, []).append((int(match[1]), file))
    cases = [
        SourceCase(name=_name(folder, source), files=tuple(file for _, file in sorted(files)))
        for folder, files in numbered.items()
    ]
    return check_names(cases, source, _LAYOUT)


def _name(folder: Path, source: Path) -> str:
    words = folder.relative_to(source).parts
    if len(words) < 2:  # patients are bare numbers: the sequence tells them apart
        words = (source.name if words else source.parent.name, folder.name)
    return "_".join((*words[:-1], f"{words[-1]:>02}"))


@dataclass(frozen=True)
class _Slice:
    kspace: NDArray[np.complex64]
    sensitivities: NDArray[np.complex64]
    target: NDArray[np.float32]
    padding: tuple[int, int] | None


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume; its target is the magnitude of ``reference``, combined with the file's sensitivities.

    Raises:
        UsageError: If a file or key is missing or wrong, or the slices differ in size; names file and key.
    """
    slices = [_read_slice(file) for file in case.files]
    for file, one in zip(case.files, slices, strict=True):
        if one.kspace.shape != slices[0].kspace.shape:
            expected, got = slices[0].kspace.shape, one.kspace.shape
            raise UsageError(f"expected {expected} in key 'rawdata' of {file}, as in the first slice, got {got}")
    target = np.stack([one.target for one in slices])
    padding: dict[str, Any] = {} if slices[0].padding is None else {"padding": np.asarray(slices[0].padding)}
    return make_volume(
        case.name,
        np.stack([one.kspace for one in slices]),
        target=target if options.crop is None else centre_crop(target, options.crop),
        sensitivities=np.stack([one.sensitivities for one in slices]),
        source_format="hammernik",
        target_is="|reference| of the source",
        **padding,
    )


def _read_slice(file: Path) -> _Slice:
    raw = read_mat(file, ("rawdata",), ("padlength_left", "padlength_right"))
    beside = file.with_name(re.sub("rawdata", "espirit", file.name, count=1, flags=re.IGNORECASE))
    maps = read_mat(beside, ("sensitivities", "reference"))
    shape = raw["rawdata"].shape
    for key, array, expected in (
        ("rawdata", raw["rawdata"], shape if len(shape) == 3 else "(H, W, C)"),
        ("sensitivities", maps["sensitivities"], shape),
        ("reference", maps["reference"], shape[:2]),
    ):
        if array.shape != expected:
            path = file if key == "rawdata" else beside
            raise UsageError(f"expected {expected} in key '{key}' of {path}, got {array.shape}")
    return _Slice(
        kspace=np.moveaxis(raw["rawdata"], -1, 0).astype(np.complex64),
        sensitivities=np.moveaxis(maps["sensitivities"], -1, 0).astype(np.complex64),
        target=np.abs(maps["reference"]).astype(np.float32),
        padding=_padding(raw, shape[1]),
    )


def _padding(raw: dict[str, NDArray[Any]], width: int) -> tuple[int, int] | None:
    if "padlength_left" not in raw or "padlength_right" not in raw:
        return None
    left, right = (int(raw[f"padlength_{side}"].squeeze()) for side in ("left", "right"))
    return left, width - right


FORMAT = SourceFormat(
    name="hammernik",
    summary="the knee .mat files of Hammernik et al. 2018 (rawdata, sensitivities, reference)",
    layout=_LAYOUT,
    kspace=MEASURED,
    find=find,
    read=read,
    options=("crop",),
    reference="https://doi.org/10.1002/mrm.26977",
)
