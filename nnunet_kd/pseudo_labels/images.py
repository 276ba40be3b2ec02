"""Whether a case can be labelled, and what its voxels are known by: every image is read once before anything else."""

import contextlib
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.nifti import check_whole, is_nifti
from nnunet_kd.pseudo_labels.pool import Scan, channel_files, count_channels

_TOLERANCE = 1e-3  # of a voxel's edge: what rounding to float32 in a header amounts to


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What teachers ask of an image.

    Attributes:
        reader: nnU-Net's class that reads it.
        volumes: Whether there is a teacher of three axes.
    """

    reader: type
    volumes: bool


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading a case once has shown.

    Attributes:
        faults: One line each; empty for a case that can be used.
        voxels: Hash of what the images show, see :func:`voxel_hash`; empty where nothing is in them.
        files: Hash of the files, byte for byte.
    """

    faults: tuple[str, ...] = ()
    voxels: str = ""
    files: str = ""


def check_scan(scan: Scan, *, needed: Requirements) -> Checked:
    """Read a case and list everything that is wrong with it.

    Args:
        scan: The case.
        needed: What it is checked against.
    """
    found = "its files"
    try:
        n_channels, least = count_channels(scan), max(scan.order) + 1
        if n_channels != scan.n_channels and (scan.n_channels is not None or n_channels < least):
            return Checked(faults=(f"has {n_channels} channels, expected {scan.n_channels or f'at least {least}'}",))
        for file in scan.files:
            found = file.name
            if is_nifti(file):
                check_whole(file)
        with channel_files(scan) as files:
            channels = [_read(file, needed.reader) for file in files]
    # whatever a broken file makes a reader raise is a fault of this file
    except Exception as error:  # noqa: BLE001
        return Checked(faults=(f"{found}: {' '.join(str(error).split())}",))
    faults = _faults(scan, channels, volumes=needed.volumes)
    if faults:
        return Checked(faults=tuple(faults))
    images = [voxels for voxels, _ in channels]
    names = [*map(str, scan.order), *map(file_sha256, scan.files)]
    return Checked(voxels=voxel_hash(images), files=hashlib.sha256(" ".join(names).encode()).hexdigest())


def _read(file: Path, reader: type) -> tuple[NDArray[np.float32], Mapping[str, Any]]:
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net's readers print before they raise
        voxels, properties = reader().read_images([str(file)])
    return voxels, properties


def _faults(
    scan: Scan, channels: Sequence[tuple[NDArray[np.float32], Mapping[str, Any]]], *, volumes: bool
) -> list[str]:
    first, geometry = channels[0]
    faults = []
    for number, (voxels, properties) in zip(scan.order, channels, strict=True):
        name = f"channel {number:04d}"
        if voxels.shape[0] != 1:
            faults.append(f"{name}: expected one image per file, got {voxels.shape[0]}")
        elif voxels.shape != first.shape:
            faults.append(f"{name}: shape {voxels.shape[1:]}, channel {scan.order[0]:04d} has {first.shape[1:]}")
        faults += [f"{name}: {text}" for text in differences(geometry, properties)]
        if not np.isfinite(voxels).all():
            faults.append(f"{name}: has values that are not finite")
    if volumes and 1 in first.shape[1:]:
        faults.append(f"expected a volume, got a single slice {first.shape[1:]}")
    return faults


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name what differs in the geometry of two images: spacing, origin, direction, or affine.

    Args:
        ours: nnU-Net's properties of an image: numbers, nested under any names.
        theirs: Of another one, read by the same reader.

    Example:
        >>> spacing = {"spacing": [1, 1, 1]}
        >>> differences({**spacing, "itk": {"origin": (0, 0, 0)}}, {**spacing, "itk": {"origin": (5, 0, 0)}})
        ['origin (5, 0, 0) and (0, 0, 0)']
    """
    edge = float(np.min(np.abs(np.asarray(ours["spacing"], dtype=float))))
    found = []
    for (name, a), (_, b) in zip(_flat(ours), _flat(theirs), strict=True):
        x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
        tolerance = _TOLERANCE * (1 if name == "direction" else edge)
        if x.shape != y.shape or float(np.abs(x - y).max()) > tolerance:
            found.append((name, f"{name} {_rounded(b)} and {_rounded(a)}"))
    # the reader repeats the spacing in nnU-Net's order of axes
    return list(dict(found).values())


def _flat(properties: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in sorted(properties.items()):
        pairs += _flat(value) if isinstance(value, Mapping) else [(name, value)]
    return pairs


def _rounded(values: Any) -> str:  # noqa: ANN401  # whatever a reader keeps
    flat = [f"{value:g}" for value in np.round(np.asarray(values, dtype=float), 4).ravel()]
    return f"({', '.join(flat)})"


def voxel_hash(images: Sequence[NDArray[np.float32]]) -> str:
    """Hash what the channels of a case show, whatever frame, orientation and file it lies in.

    Of each channel: the voxels that are not 0, sorted, and the extents of the box around them, sorted. So a copy is
    known again with another header, compression, number type or axis order, mirrored, cropped, or padded with zeros.
    It is not known again when values changed (resampled, rescaled, skull-stripped or corrected anew, noise), when
    something other than zeros was cut off, or with its channels in another order.

    Args:
        images: One per channel in the teachers' order, any shape.

    Returns:
        64 hexadecimal digits; an empty text where no channel has two different values beside 0.

    Example:
        >>> image = np.array([[0, 0, 0], [1, 2, 3]], dtype=np.float32)
        >>> voxel_hash([image]) == voxel_hash([image[1:, ::-1]])
        True
        >>> voxel_hash([image]) == voxel_hash([2 * image])
        False
    """
    digests, informative = [], False
    for image in images:
        inside = np.asarray(image, dtype="<f4") != 0
        values = np.sort(np.asarray(image, dtype="<f4")[inside])
        digest = hashlib.sha256(values.tobytes())
        digest.update(str(sorted(_extents(inside))).encode())
        digests.append(digest.hexdigest())
        informative = informative or (values.size > 1 and bool(values[0] != values[-1]))
    return hashlib.sha256(" ".join(digests).encode()).hexdigest() if informative else ""


def _extents(inside: NDArray[np.bool_]) -> list[int]:
    """Return the size of the box around what is inside, without axes of length 1."""
    extents = []
    for axis in range(inside.ndim):
        occupied = np.flatnonzero(inside.any(axis=tuple(a for a in range(inside.ndim) if a != axis)))
        extents.append(int(occupied[-1] - occupied[0] + 1) if occupied.size else 0)
    return [extent for extent in extents if extent > 1]


def find_duplicates(pool: Mapping[str, str], labelled: Mapping[str, str]) -> dict[str, str]:
    """Return the cases of the pool to leave out because others have the same images, and which ones.

    Args:
        pool: Hash of each case, see :func:`voxel_hash`; empty ones equal none. Of equal cases the first stays.
        labelled: Hash of each labelled case.

    Example:
        >>> find_duplicates({"a": "1", "b": "1", "c": "2", "d": ""}, {"x": "2"})
        {'b': 'same images as a of the pool', 'c': 'same images as labelled x'}
    """
    known: dict[str, str] = {}
    for case, digest in labelled.items():
        known.setdefault(digest, f"labelled {case}")
    known.pop("", None)
    found = {}
    for case, digest in pool.items():
        if digest in known:
            found[case] = f"same images as {known[digest]}"
        elif digest:
            known[digest] = f"{case} of the pool"
    return found
