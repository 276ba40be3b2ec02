"""ISMRMRD raw data, two-dimensional Cartesian, through the format's own library.

https://ismrmrd.readthedocs.io. One encoding, no partitions, one contrast, phase, repetition and set; averages are
averaged, segments joined.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require
from nnunet_kd.recon.data.arrays import centre_crop, root_sum_of_squares, to_images
from nnunet_kd.recon.data.cases import Volume, make_volume
from nnunet_kd.recon.data.dataset import MEASURED
from nnunet_kd.recon.data.formats.source import ReadOptions, SourceCase, SourceFormat, check_names, files_below
from nnunet_kd.recon.data.hdf5 import opened
from nnunet_kd.recon.data.ismrmrd_header import HeaderFacts, read_facts

_LAYOUT = "a folder with ISMRMRD's .h5 or .mrd files"
_ENDINGS = (".h5", ".mrd")
_GROUP = "dataset"
# flags of acquisitions, numbered from 1 (ISMRMRD_AcquisitionFlags): no image data are noise, calibration alone,
# navigation, phase correction and stabilisation, feedback, dummies and surface coil correction
_NOT_IMAGE, _REVERSED = (19, 20, 23, 24, 26, 27, 28, 29, 30), 22
_ONE_ONLY = ("kspace_encode_step_2", "contrast", "phase", "repetition", "set")


def find(source: Path, options: ReadOptions) -> list[SourceCase]:  # noqa: ARG001  # as all formats have it
    """List the volumes, one per file.

    Raises:
        UsageError: If there are none or one twice.
    """
    cases = [SourceCase(name=file.name.rpartition(".")[0], files=(file,)) for file in files_below(source, _ENDINGS)]
    return check_names(cases, source, _LAYOUT)


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume: lines are put where their encoding step says.

    A volume whose lines between the first and the last are all there has a target, the root sum of squares cropped to
    the header's image matrix; another one has a mask.

    Raises:
        UsageError: If the library is missing, or the file is damaged or of another kind.
    """
    path = case.files[0]
    with opened(path) as file:
        if f"{_GROUP}/xml" not in file or f"{_GROUP}/data" not in file:
            raise UsageError(f"expected the keys '{_GROUP}/xml' and '{_GROUP}/data' in {path}, found {sorted(file)}")
        value = file[f"{_GROUP}/xml"][0]
    facts = _facts(value if isinstance(value, bytes) else bytes(str(value), "utf-8"), path)
    with require("ismrmrd").File(path, mode="r") as file:
        kspace, counts = _lines(file[_GROUP].acquisitions, facts, path)
    sampled: NDArray[np.bool_] = np.asarray((counts > 0).any(axis=0))
    kspace /= np.maximum(counts, 1)[:, None, None, :]
    columns = np.flatnonzero(sampled)
    padding = (int(columns[0]), int(columns[-1]) + 1)
    attributes: dict[str, Any] = {"source_format": "ismrmrd", "padding": np.asarray(padding)}
    if not sampled[padding[0] : padding[1]].all():
        return make_volume(case.name, kspace, mask=sampled, **attributes)
    target = root_sum_of_squares(to_images(kspace))
    size = options.crop or (min(facts.recon[0], target.shape[-2]), min(facts.recon[1], target.shape[-1]))
    return make_volume(case.name, kspace, target=centre_crop(target, size), **attributes)


def _facts(xml: bytes, path: Path) -> HeaderFacts:
    try:
        facts = read_facts(xml)
    except ValueError as error:
        raise UsageError(f"expected an ISMRMRD header in key '{_GROUP}/xml' of {path}, but it {error}") from error
    if facts.encoded[2] != 1:
        raise UsageError(f"expected two-dimensional encoding in {path}, got {facts.encoded[2]} partitions")
    return facts


def _image_lines(acquisitions: Any, path: Path) -> Iterator[Any]:  # noqa: ANN401  # the library's
    first = None
    for line in acquisitions:
        if any(line.is_flag_set(flag) for flag in _NOT_IMAGE):
            continue
        if line.is_flag_set(_REVERSED):
            raise UsageError(
                f"expected readouts in one direction in key '{_GROUP}/data' of {path}, found reversed ones"
            )
        numbers = tuple(getattr(line.idx, name) for name in _ONE_ONLY)
        first = numbers if first is None else first
        if numbers != first:
            name = next(name for name, a, b in zip(_ONE_ONLY, numbers, first, strict=True) if a != b)
            raise UsageError(f"expected one {name} in key '{_GROUP}/data' of {path}, found several; split the file")
        yield line


def _lines(acquisitions: Any, facts: HeaderFacts, path: Path) -> tuple[NDArray[np.complex64], NDArray[np.int64]]:  # noqa: ANN401
    """Return summed k-space ``(S, C, H, W)``, and how often each column was acquired, ``(S, W)``."""
    lines = list(_image_lines(acquisitions, path))
    if not lines:
        raise UsageError(f"expected lines of k-space in key '{_GROUP}/data' of {path}, found none")
    height, width = facts.encoded[:2]
    shape = (max(line.idx.slice for line in lines) + 1, lines[0].active_channels, height, width)
    kspace, counts = np.zeros(shape, np.complex64), np.zeros((shape[0], width), np.int64)
    for line in lines:
        row, column = height // 2 - line.center_sample, line.idx.kspace_encode_step_1 + facts.padding[0]
        data = line.data[:, line.discard_pre : line.data.shape[1] - line.discard_post]
        row += line.discard_pre
        if row < 0 or row + data.shape[1] > height or not 0 <= column < width or len(data) != shape[1]:
            raise UsageError(
                f"expected lines within the encoded matrix {(height, width)} and {shape[1]} coils in key "
                f"'{_GROUP}/data' of {path}, got column {column}, rows from {row}, {data.shape}"
            )
        kspace[line.idx.slice, :, row : row + data.shape[1], column] += data
        counts[line.idx.slice, column] += 1
    return kspace, counts


FORMAT = SourceFormat(
    name="ismrmrd",
    summary="ISMRMRD raw data, two-dimensional Cartesian (needs the extra 'ismrmrd')",
    layout=_LAYOUT,
    kspace=MEASURED,
    find=find,
    read=read,
    options=("crop",),
)
