"""Phantoms as a complete raw nnU-Net data set."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.volumes import phantom_case

Kind = Literal["labels", "regions", "ignore"]

_IGNORE = 3
_TRAINING, _TEST = 0, 1  # first entry of a case's seed, so that the two parts never share a case


def _labels(kind: Kind) -> dict[str, Any]:
    """Return the part of dataset.json that says what is segmented."""
    if kind == "regions":
        return {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}
    labels = {"background": 0, "outer": 1, "inner": 2}
    return {"labels": labels | ({"ignore": _IGNORE} if kind == "ignore" else {})}


def _description(name: str, kind: Kind, n_train: int, n_channels: int) -> dict[str, Any]:
    # names that nnU-Net does not know select the z-score, as for MRI
    return {
        "channel_names": {str(channel): f"phantom{channel}" for channel in range(n_channels)},
        **_labels(kind),
        "numTraining": n_train,
        "file_ending": ".nii.gz",
        "name": name,
        "description": "Synthetic nested structures with noise, bias field and look-alikes",
        "licence": "CC0-1.0",
        "reference": "nnunet_kd.phantoms",
        "release": "1",
    }


def _with_unlabelled_part(label: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mark a slab of a third of the longest axis as ignored, as an annotator who stopped early would."""
    axis = int(np.argmax(label.shape))
    length = label.shape[axis]
    thickness = max(1, length // 3)
    start = int(rng.integers(0, length - thickness + 1))
    slab = [slice(None)] * label.ndim
    slab[axis] = slice(start, start + thickness)
    marked = label.copy()
    marked[tuple(slab)] = _IGNORE
    # both structures must remain to be learnt from
    return marked if {1, 2} <= set(np.unique(marked).tolist()) else label


def _jittered(shape: tuple[int, int, int], share: float, rng: np.random.Generator) -> tuple[int, int, int]:
    z, y, x = (n if n == 1 else max(2, round(n * rng.uniform(1 - share, 1 + share))) for n in shape)
    return z, y, x


def _write_volume(array: NDArray[Any], spacing: tuple[float, float, float], path: Path) -> None:
    import nibabel  # not needed by the pure functions

    # nnU-Net's order is z, y, x and NIfTI's x, y, z; the minus signs make the identity direction of DICOM and ITK
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)  # type: ignore[no-untyped-call]
    nibabel.save(image, path)


def _write_case(
    folder: Path,
    file: str,
    *,
    part: int,
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    spacing: tuple[float, float, float],
) -> None:
    images, labels = (folder / f"{kind}{'Tr' if part == _TRAINING else 'Ts'}" for kind in ("images", "labels"))
    images.mkdir(exist_ok=True)
    labels.mkdir(exist_ok=True)
    for channel, volume in enumerate(image):
        _write_volume(volume, spacing, images / file.replace(".nii.gz", f"_{channel:04d}.nii.gz"))
    _write_volume(label, spacing, labels / file)


def _seeds(n_train: int, n_test: int, seed: int) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    """Yield each case's name, part and seed; more cases never change the others."""
    for number in range(n_train):
        yield f"phantom_{number:03d}", _TRAINING, (seed, _TRAINING, number)
    for number in range(n_test):
        yield f"phantom_test_{number:03d}", _TEST, (seed, _TEST, number)


def _splits(n_train: int) -> list[dict[str, list[str]]]:
    """Leave out one case per fold; nnU-Net's own five folds need five cases."""
    names = [name for name, _, _ in _seeds(n_train, 0, 0)]
    return [{"train": [n for n in names if n != held_out], "val": [held_out]} for held_out in names]


def write_phantom_dataset(  # noqa: PLR0913  # one call describes a whole data set, by keyword
    nnunet_raw_folder: Path | str,
    *,
    dataset_id: int,
    name: str,
    n_train: int,
    n_test: int,
    seed: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    shape_jitter: float = 0.0,
    n_channels: int = 1,
    kind: Kind = "labels",
    overwrite: bool = False,
) -> Path:
    """Write phantoms as the raw data set ``DatasetXXX_NAME``.

    The folder appears complete or not at all. The same arguments give the same voxels. Test cases
    come with their complete labels in ``labelsTs``; with fewer than five training cases a
    ``splits_final.json`` is added that leaves out one case per fold.

    Args:
        nnunet_raw_folder: Where nnU-Net looks for raw data sets.
        dataset_id: Number of the data set, 1 to 999.
        name: What follows the number in the folder's name.
        n_train: Number of training cases.
        n_test: Number of held-out cases.
        seed: Seed of the whole data set.
        shape: Voxels per axis in nnU-Net's order (z, y, x); (1, y, x) is a two-dimensional data set.
        spacing: Millimetres per voxel in the same order.
        shape_jitter: Largest relative change of a case's shape, in [0, 1).
        n_channels: Number of images per case.
        kind: ``labels`` for two exclusive classes, ``regions`` for the overlapping regions whole
            and core, ``ignore`` for classes with a third of most training cases unlabelled.
        overwrite: Replace a folder that exists.

    Returns:
        The data set's folder.

    Raises:
        UsageError: If the folder exists and ``overwrite`` is not set.
    """
    raw = Path(nnunet_raw_folder)
    target = raw / f"Dataset{dataset_id:03d}_{name}"
    if target.exists() and not overwrite:
        raise UsageError(f"expected no data set at {target}, but it exists; type --overwrite to replace it")
    raw.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=raw))
    try:
        for case, part, case_seed in _seeds(n_train, n_test, seed):
            rng = np.random.default_rng((*case_seed, 1))
            image, label = phantom_case(case_seed, shape=_jittered(shape, shape_jitter, rng), n_channels=n_channels)
            if kind == "ignore" and part == _TRAINING:
                label = _with_unlabelled_part(label, rng)
            _write_case(work, f"{case}.nii.gz", part=part, image=image, label=label, spacing=spacing)
        if n_train < 5:
            (work / "splits_final.json").write_text(json.dumps(_splits(n_train), indent=1))
        # last, so that a data set with a description is a whole one
        (work / "dataset.json").write_text(json.dumps(_description(name, kind, n_train, n_channels), indent=1))
        work.chmod(0o755)  # mkdtemp's own rights would hide it from other users
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target
