"""Patches that an exported network is compared on and calibrated with: real ones with foreground, or noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.cropping import as_slices
from nnunet_kd.deployment.inference.images import read_image
from nnunet_kd.deployment.inference.label_maps import resample_labels
from nnunet_kd.deployment.inference.pipeline import prepare_case, read_case
from nnunet_kd.deployment.inference.plan import InferencePlan
from nnunet_kd.errors import UsageError

Array = NDArray[np.float32]
Labels = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One input of a network.

    Attributes:
        case: Name of the case it is from.
        image: ``(C, *patch)``, preprocessed; a cascade's channels included.
        labels: Reference labels, ``(*patch)``; ``None`` where there are none.
    """

    case: str
    image: Array
    labels: Labels | None = None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Patches and where they are from.

    Attributes:
        origin: In words, for reports.
        checked: What is compared.
        calibration: What int8 is calibrated with, from other cases where there is more than one; empty for noise.
    """

    origin: str
    checked: tuple[Patch, ...]
    calibration: tuple[Patch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Cases that are loaded one at a time.

    Attributes:
        origin: In words.
        cases: Their names in order.
        load: From a name to the network's input volume, ``(C, x, y, z)``, and its labels, ``(x, y, z)`` or ``None``.
    """

    origin: str
    cases: tuple[str, ...]
    load: Callable[[str], tuple[Any, Labels | None]]


def preprocessed_source(folder: Path, plan: InferencePlan) -> Source | None:
    """Return the cases that nnU-Net preprocessed for a configuration, ``None`` if there are none.

    A cascade sees the reference labels in place of the previous stage's.

    Args:
        folder: ``nnUNet_preprocessed/DATASET/DATA_IDENTIFIER``.
        plan: The model's.
    """
    if not folder.is_dir() or not any(folder.glob("*.pkl")):
        return None
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    kind = infer_dataset_class(str(folder))
    dataset = kind(str(folder))

    def load(case: str) -> tuple[Any, Labels]:
        image, stored, *_ = dataset.load_case(case)
        # nnU-Net marks the empty border with -1
        labels: Labels = np.maximum(np.asarray(stored[:])[0], 0).astype(np.int16)
        if plan.previous_stage:
            image = np.vstack([np.asarray(image[:]), *((labels == label)[None] for label in plan.foreground_labels)])
        return image, labels

    origin = f"preprocessed cases of {plan.dataset_name}, {folder.name}"
    return Source(origin=origin, cases=tuple(sorted(dataset.identifiers)), load=load)


def raw_source(folder: Path, plan: InferencePlan, label_folder: Path | None = None) -> Source:
    """Return the cases of a folder of images, preprocessed when they are loaded.

    Args:
        folder: Images as nnU-Net names them, ``CASE_0000`` and the model's file ending.
        plan: The model's.
        label_folder: Label maps ``CASE`` and the ending; a cascade needs them in place of the previous stage's.

    Raises:
        UsageError: If there is no case, a case lacks its label map, or a cascade has none.
    """
    if plan.previous_stage and label_folder is None:
        raise UsageError(
            f"--cases: a cascade takes the label maps of {plan.previous_stage} too; name their folder with --labels"
        )
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(f"*_[0-9][0-9][0-9][0-9]{plan.file_ending}")):
        files.setdefault(file.name[: -len(plan.file_ending) - 5], []).append(file)
    if not files:
        raise UsageError(f"--cases: expected images named CASE_0000{plan.file_ending} in {folder}, found none")
    label_files = {case: label_folder / f"{case}{plan.file_ending}" for case in files} if label_folder else {}
    if missing := [file for file in label_files.values() if not file.is_file()]:
        raise UsageError(f"--labels: expected {missing[0]}, found none; name the folder with a label map per case")

    def load(case: str) -> tuple[Array, Labels | None]:
        return _load_raw(files[case], label_files.get(case), plan)

    return Source(origin=f"cases in the folder {folder.name}", cases=tuple(files), load=load)


def _load_raw(files: Sequence[Path], label_file: Path | None, plan: InferencePlan) -> tuple[Array, Labels | None]:
    image = read_case(files, plan)
    if label_file is None:
        return prepare_case(image, plan).data, None
    label_map = read_image([label_file], plan.image_reader_writer).array[0]
    if label_map.shape != image.array.shape[1:]:
        shapes = f"{image.array.shape[1:]}, got {label_map.shape}"
        raise UsageError(f"{label_file}: expected the shape of its image, {shapes}; take its own label map")
    prepared = prepare_case(image, plan, label_map if plan.previous_stage else None)
    cropped = label_map.transpose(plan.transpose_forward)[as_slices(prepared.box)]
    wanted = (*prepared.spacing[: 3 - len(plan.spacing)], *plan.spacing)
    labels = resample_labels(cropped, prepared.data.shape[1:], prepared.spacing, wanted, plan.resampling_seg)
    return prepared.data, np.maximum(labels, 0).astype(np.int16)


def take_examples(source: Source, plan: InferencePlan, *, n_checked: int, n_calibration: int = 0) -> Examples:
    """Cut patches around foreground voxels, every label in turn; the same ones at every call.

    Args:
        source: Cases.
        plan: The model's.
        n_checked: Patches to compare, at least 1.
        n_calibration: Patches to calibrate with.

    Raises:
        UsageError: If a case cannot be read.
    """
    rng = np.random.default_rng(0)
    halves = (source.cases[::2], source.cases[1::2] or source.cases) if n_calibration else (source.cases, ())
    checked = _spread(source, halves[0], plan, n_checked, rng)
    calibration = _spread(source, halves[1], plan, n_calibration, rng)
    return Examples(origin=source.origin, checked=tuple(checked), calibration=tuple(calibration))


def noise_examples(plan: InferencePlan, n: int) -> Examples:
    """Return patches of normal noise, and of zeros and ones in a cascade's channels."""
    rng = np.random.default_rng(0)
    n_image = len(plan.channel_names)
    patches = []
    for index in range(n):
        image = rng.normal(size=(n_image, *plan.patch_size)).astype(np.float32)
        extra = rng.integers(0, 2, size=(plan.n_inputs - n_image, *plan.patch_size)).astype(np.float32)
        patches.append(Patch(case=f"noise_{index}", image=np.vstack([image, extra])))
    return Examples(origin="synthetic noise, because no case was at hand", checked=tuple(patches))


def _spread(source: Source, cases: Sequence[str], plan: InferencePlan, n: int, rng: np.random.Generator) -> list[Patch]:
    """Take ``n`` patches, as evenly from the cases as can be, from cases that are evenly spread."""
    if not cases or n < 1:
        return []
    n_cases = min(n, len(cases))
    chosen = [cases[index * len(cases) // n_cases] for index in range(n_cases)]
    patches: list[Patch] = []
    for index, case in enumerate(chosen):
        image, labels = source.load(case)
        for _ in range(n // n_cases + (index < n % n_cases)):
            centre = _centre(image.shape[1:], labels, plan, len(patches), rng)
            cut = _cut(image, centre, plan.patch_size).astype(np.float32)
            cut_labels = None if labels is None else _cut(labels[None], centre, plan.patch_size)[0]
            patches.append(Patch(case=case, image=cut, labels=cut_labels))
    return patches


def _centre(
    shape: Sequence[int], labels: Labels | None, plan: InferencePlan, turn: int, rng: np.random.Generator
) -> tuple[int, ...]:
    present = () if labels is None else np.intersect1d(labels, plan.foreground_labels)
    if labels is None or not len(present):
        return tuple(int(rng.integers(n)) for n in shape)
    voxels = np.flatnonzero(labels == present[turn % len(present)])
    return tuple(int(index) for index in np.unravel_index(rng.choice(voxels), labels.shape))


def _cut(array: Any, centre: Sequence[int], patch_size: Sequence[int]) -> NDArray[Any]:  # noqa: ANN401  # numpy or blosc2
    """Return a patch of ``(C, x, y, z)``, moved inside the array, with zeros behind where the array is smaller."""
    n_slices = len(centre) - len(patch_size)
    sizes = (*[1] * n_slices, *patch_size)
    starts = [
        max(0, min(middle - size // 2, length - size))
        for middle, size, length in zip(centre, sizes, array.shape[1:], strict=True)
    ]
    window = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    part = np.asarray(array[(slice(None), *window)])
    gaps = [(0, size - length) for size, length in zip(sizes, part.shape[1:], strict=True)]
    padded = np.pad(part, [(0, 0), *gaps])
    return padded.reshape(len(padded), *patch_size)
