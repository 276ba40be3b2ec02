"""What is wrong with a case: its files are read once, one at a time."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription
from nnunet_kd.dataset_conversion.incoming.volumes import Image, parts, read_image

_GEOMETRY_TOLERANCE = 1e-3  # of a voxel's edge: what rounding to float32 in a header amounts to


@dataclass(frozen=True)
class CheckedCase:
    """What reading a case once has shown.

    Attributes:
        faults: One line each; empty for a case that can be used.
        hashes: Path relative to the source and SHA-256 of each file.
        label_type: How the label map's numbers are stored, where that is not as whole numbers; empty otherwise.
    """

    faults: tuple[str, ...]
    hashes: tuple[tuple[str, str], ...] = ()
    label_type: str = ""


@dataclass(frozen=True)
class _Facts:
    """What stays of a file when its voxels are gone.

    Attributes:
        shape: Of all its axes.
        affine: Voxel to world.
        faults: What is wrong with its numbers.
        hashes: Its files with their SHA-256.
        type_: How its numbers are stored.
    """

    shape: tuple[int, ...]
    affine: Any
    faults: tuple[str, ...]
    hashes: tuple[tuple[Path, str], ...]
    type_: str = ""


def label_files(case: Case) -> tuple[Path, ...]:
    """Return the files that make up a case's label map."""
    return tuple(path for path, _ in case.label_layers) or ((case.label,) if case.label else ())


def volumes_of(case: Case) -> list[tuple[Path, int | None]]:
    """Return every file of a case and which volume in it, the label map's last."""
    return [(image.path, image.index) for image in case.images] + [(path, None) for path in label_files(case)]


def check_case(case: Case, *, description: DatasetDescription, source: Path) -> CheckedCase:
    """Read a case's files once and list everything that is wrong with them.

    Args:
        case: Which one.
        description: Says how many images it has and which values its label map may hold.
        source: Folder the hashes' paths are relative to.
    """
    faults: list[str] = []
    if len(case.images) != len(description.channel_names):
        faults.append(f"expected {len(description.channel_names)} images, got {len(case.images)}")
    volumes = volumes_of(case)
    if len({(path.resolve(), index) for path, index in volumes}) != len(volumes):
        faults.append("names the same file twice")
    facts: dict[Path, _Facts] = {}
    for path in dict.fromkeys(path for path, _ in volumes):
        allowed = description.source_values if path == case.label and not case.label_layers else None
        indices = [index for other, index in volumes if other == path]
        try:
            facts[path] = _facts(path, indices, allowed)
        # whatever a broken file makes the reader raise is a fault of this file
        except Exception as error:  # noqa: BLE001
            faults.append(f"{path.name} in {path.parent.name}: {' '.join(str(error).split())}")
    faults += _geometry_faults(facts)
    faults += [
        f"paints label value {v}; expected only {sorted(description.source_values)}"
        for v in sorted({value for _, value in case.label_layers} - set(description.source_values))
    ]
    faults += [message for found in facts.values() for message in found.faults]
    if faults:
        return CheckedCase(tuple(faults))
    hashes = tuple((os.path.relpath(path, source), digest) for found in facts.values() for path, digest in found.hashes)
    return CheckedCase((), hashes, facts[case.label].type_ if case.label in facts else "")


def _facts(path: Path, indices: list[int | None], allowed: Mapping[int, int] | None) -> _Facts:
    image = read_image(path)
    _refuse_other_axes(image.stored.shape, indices)
    if allowed is None:
        faults: tuple[str, ...] = ()
        type_ = ""
        if not _finite(image):
            faults = (f"{path.name} in {path.parent.name}: has intensities that are not finite in 32 bits",)
    else:
        faults, type_ = _label_faults(image, frozenset(allowed)), _label_type(image)
    hashes = tuple(zip(parts(path), image.sha256, strict=True))
    return _Facts(image.stored.shape, image.affine, faults, hashes, type_)


def _finite(image: Image) -> bool:
    """Tell whether all values, scaled as the header says, are numbers of 32 bits, in which nnU-Net computes."""
    import numpy as np

    slope, intercept = image.scale
    # what is not a number is handed on by both
    ends = np.array([image.stored.min(), image.stored.max()], np.float64) * slope + intercept
    return bool((np.abs(ends) <= np.finfo(np.float32).max).all())


def _refuse_other_axes(shape: tuple[int, ...], indices: list[int | None]) -> None:
    n_axes = 3 if None in indices else 4
    if len(shape) != n_axes:
        raise ValueError(f"expected {n_axes} dimensions, got {len(shape)} with shape {shape}")
    outside = [index for index in indices if index is not None and not 0 <= index < shape[3]]
    if outside:
        raise ValueError(f"expected channel {outside[0]} along the fourth axis, got {shape[3]} channels, from 0")


def _geometry_faults(facts: Mapping[Path, _Facts]) -> list[str]:
    """Compare every volume of a case with its first."""
    import numpy as np

    faults = []
    items = list(facts.items())
    for path, found in items[1:]:
        first, reference = items[0]
        names = f"{path.parent.name}/{path.name} and {first.parent.name}/{first.name}"
        if found.shape[:3] != reference.shape[:3]:
            faults.append(f"{names}: shapes {found.shape[:3]} and {reference.shape[:3]}")
            continue
        edge = np.linalg.norm(reference.affine[:3, :3], axis=0).min()
        # how far the outermost corner lies apart, in voxels
        difference = np.abs(found.affine - reference.affine) @ np.array([*found.shape[:3], 1.0])
        if difference.max() > _GEOMETRY_TOLERANCE * edge:
            faults.append(f"{names}: positions differ by up to {difference.max():.3g} mm")
    return faults


def _label_faults(image: Image, allowed: frozenset[int]) -> tuple[str, ...]:
    unknown = [value for value in _distinct(image.values()) if value not in allowed]
    if not unknown:
        return ()
    shown = ", ".join(f"{value:g}" for value in unknown[:5])
    return (f"has label values {shown}; expected only {sorted(allowed)}",)


def _distinct(values: Any) -> list[float]:  # noqa: ANN401  # an array; numpy loads lazily
    import numpy as np

    with np.errstate(invalid="ignore"):
        small = values.astype(np.uint8)
    if np.array_equal(small, values):  # counting is many times faster than sorting
        return list(map(float, np.flatnonzero(np.bincount(small.ravel(order="K"), minlength=256))))
    return list(map(float, np.unique(values)))


def _label_type(image: Image) -> str:
    scaled = "scaled " if image.scale != (1.0, 0.0) else ""
    name = str(image.stored.dtype.newbyteorder("="))
    return f"{scaled}{name}" if scaled or image.stored.dtype.kind == "f" else ""
