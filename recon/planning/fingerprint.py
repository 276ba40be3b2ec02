"""What a data set holds: the facts that plans are made from, ``dataset_fingerprint.json``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.recon.data.arrays import root_sum_of_squares, to_images
from nnunet_kd.recon.data.cases import Volume, read_header, read_volume
from nnunet_kd.recon.data.dataset import MEASURED, RawDataset
from nnunet_kd.recon.physics.sampling import calibration_size, true_acceleration
from nnunet_kd.recon.planning.case_work import map_files

FILE = "dataset_fingerprint.json"
PERCENTILE = 99.9
CORNER = 16  # a corner is this part of height and of width
REAL_IMAGE = 1e-3  # share of the imaginary part below which k-space was made from magnitudes


def dataset_fingerprint(
    dataset: RawDataset, *, scheduler: str | None = None, n_workers: int | None = None
) -> dict[str, Any]:
    """Read every training case and gather its facts.

    Args:
        dataset: The raw data set.
        scheduler: Address of a running dask scheduler.
        n_workers: Local processes, 0 for this one.

    Returns:
        ``cases`` with the facts of each, and what holds of all: ``matrices``, ``coils``, ``n_slices``,
        ``target_shapes``, ``intensity``, ``noise``, ``source_formats`` and, where files hold masks, ``sampling``.

    Raises:
        UsageError: If there are no cases, or some are faulty.
    """
    paths = list(dataset.training.values())
    if not paths:
        raise UsageError(
            f"expected training cases in {dataset.folder / 'kspaceTr'}, found none; convert the data again"
        )
    function = partial(case_fingerprint, single_coil=dataset.settings["acquisition"] == "single_coil")
    facts = map_files(function, paths, "Fingerprint", path_of=Path, scheduler=scheduler, n_workers=n_workers)
    return summary(dict(zip(dataset.training, facts, strict=True)))


def case_fingerprint(path: Path, *, single_coil: bool) -> dict[str, Any]:
    """Gather the facts of one case, reading one slice at a time.

    Args:
        path: The file.
        single_coil: What the data set says of its cases.

    Raises:
        UsageError: If the file is faulty or has coils where the data set says it has none.
    """
    header = read_header(path)
    if single_coil and header.n_coils > 1:
        raise UsageError(
            f"{path}, kspace: expected a single coil, as dataset.json says, got {header.n_coils}; "
            "set 'acquisition' to 'multi_coil' there"
        )
    slices = [slice_facts(read_volume(path, slices=index)) for index in range(header.n_slices)]
    facts = {
        "matrix": list(header.matrix),
        "n_coils": header.n_coils,
        "n_slices": header.n_slices,
        "patient": header.patient,
        "source_format": header.source_format,
        "target_shape": None if header.target_shape is None else list(header.target_shape),
        "padding": None if header.padding is None else list(header.padding),
        **{key: float(np.median([one[key] for one in slices])) for key in ("maximum", "percentile_99_9", "noise")},
        "imaginary_share": max(one["imaginary_share"] for one in slices),
        "noise_from": slices[0]["noise_from"],
    }
    mask = read_volume(path, slices=0).mask
    return facts if mask is None else facts | {"mask": mask_facts(mask, header.padding)}


def slice_facts(volume: Volume) -> dict[str, Any]:
    """Measure intensity, noise and phase of a volume of one slice.

    Returns:
        ``maximum`` and ``percentile_99_9`` of the zero-filled image's magnitude (coils by root sum of squares);
        ``noise``, the standard deviation of real and imaginary part in k-space, and where it is ``noise_from``;
        ``imaginary_share``, the length of the image's imaginary part over its own.
    """
    kspace = volume.kspace[0]
    images = to_images(kspace)
    magnitude = root_sum_of_squares(images)
    noise, where = noise_estimate(_acquired(kspace, volume), images)
    return {
        "maximum": float(magnitude.max()),
        "percentile_99_9": float(np.percentile(magnitude, PERCENTILE)),
        "noise": noise,
        "noise_from": where,
        "imaginary_share": float(np.linalg.norm(images.imag) / max(float(np.linalg.norm(images)), 1e-30)),
    }


def noise_estimate(kspace: NDArray[Any], images: NDArray[Any]) -> tuple[float, str]:
    """Return the standard deviation of real and imaginary part, and where it was found.

    The transform being orthonormal, it is the same in k-space and in images. Corners of k-space may hold signal, those
    of images too: the quieter of the two is nearer to the truth. What is zero altogether was filled in.

    Args:
        kspace: What was acquired, ``(C, H, W)``.
        images: Of the coils, ``(C, H, W)``.

    Returns:
        The estimate, 0 without noise, and ``k-space corners`` or ``image corners``.
    """
    places = (("k-space corners", kspace), ("image corners", images))
    found = [(rayleigh_scale(np.abs(corners(array))), where) for where, array in places]
    return min([one for one in found if one[0] > 0], default=(0.0, "image corners"))


def _acquired(kspace: NDArray[Any], volume: Volume) -> NDArray[Any]:
    padding = volume.header.padding
    kspace = kspace if padding is None else kspace[..., slice(*padding)]
    sampled = np.abs(kspace).sum(axis=(0, 1)) > 0  # columns of a prospective mask that hold something
    return kspace[..., sampled]


def corners(array: NDArray[Any]) -> NDArray[Any]:
    """Return the values in the four corners of the last two axes, flattened; a 16th of each axis."""
    height, width = (max(n // CORNER, 1) for n in array.shape[-2:])
    rows = np.concatenate([array[..., :height, :], array[..., -height:, :]], axis=-2)
    return np.concatenate([rows[..., :width], rows[..., -width:]], axis=-1).ravel()


def rayleigh_scale(magnitudes: NDArray[Any]) -> float:
    """Return the standard deviation of each component of complex noise from its magnitudes' median.

    The median does not mind the little signal that is left there.

    Example:
        >>> rayleigh_scale(np.full(3, math.sqrt(2 * math.log(2))))
        1.0
    """
    return float(np.median(magnitudes)) / math.sqrt(2 * math.log(2))


def mask_facts(mask: NDArray[np.float32], padding: tuple[int, int] | None) -> dict[str, Any]:
    """Return the true acceleration and the width of the fully sampled centre of a mask."""
    mask = np.atleast_2d(mask)
    return {
        "true_acceleration": round(true_acceleration(mask, padding), 4),
        "calibration_width": calibration_size(mask),
        "n_sampled": int((mask != 0).sum()),
    }


def summary(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Gather what holds of all cases."""
    facts = list(cases.values())
    result = {
        "cases": dict(cases),
        "matrices": _different(tuple(one["matrix"]) for one in facts),
        "coils": _different(one["n_coils"] for one in facts),
        "target_shapes": _different(tuple(one["target_shape"]) for one in facts if one["target_shape"]),
        "n_slices": sum(one["n_slices"] for one in facts),
        "intensity": {key: _spread([one[key] for one in facts]) for key in ("maximum", "percentile_99_9")},
        "noise": _spread([one["noise"] for one in facts]),
        "imaginary_share": max(one["imaginary_share"] for one in facts),
        "source_formats": _different(one["source_format"] for one in facts),
    }
    masks = [one["mask"] for one in facts if "mask" in one]
    if masks:
        keys = ("true_acceleration", "calibration_width")
        result["sampling"] = {"n_cases": len(masks)} | {key: _spread([mask[key] for mask in masks]) for key in keys}
    return result


def _different(values: Iterable[Any]) -> list[Any]:
    return [list(value) if isinstance(value, tuple) else value for value in sorted(set(values))]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "smallest": float(min(values)), "largest": float(max(values))}


def read_fingerprint(folder: Path, dataset: RawDataset) -> dict[str, Any]:
    """Read a data set's fingerprint.

    Args:
        folder: ``nnUNet_preprocessed/DatasetXXX_Name``.
        dataset: The raw data set.

    Raises:
        UsageError: If it is missing, damaged, or was taken of other cases.
    """
    path, again = folder / FILE, f"type: nnunet_kd recon extract_fingerprint -d {dataset.name}"
    if not path.is_file():
        raise UsageError(f"expected a fingerprint at {path}, found none; {again}")
    fingerprint = read_json_object(path)
    missing = [key for key in ("cases", "matrices", "coils", "target_shapes", "n_slices") if key not in fingerprint]
    if missing:
        raise UsageError(f"{path}: missing key '{missing[0]}'; {again} --overwrite")
    different = sorted(set(fingerprint["cases"]) ^ set(dataset.training))
    if different:
        raise UsageError(f"{path} was taken of other cases ('{different[0]}' is in one only); {again} --overwrite")
    return fingerprint


def doubts(fingerprint: Mapping[str, Any], kspace: str) -> list[str]:
    """Return a line for what a physicist should look at before planning."""
    lines = []
    if kspace == MEASURED and fingerprint["imaginary_share"] < REAL_IMAGE:
        lines.append(
            "dataset.json says that k-space was measured, but its images have no phase: it looks derived from "
            "magnitudes, and results on it would say too much"
        )
    spread = fingerprint["intensity"]["maximum"]
    if spread["smallest"] > 0 and spread["largest"] / spread["smallest"] > 1e3:
        lines.append("intensities differ more than a thousandfold between cases; look at their scales")
    return lines
