"""The case of a data set that stands for all others when seconds are measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import nnunet_folder, read_json_object


@dataclass(frozen=True, kw_only=True)
class BudgetCase:
    """A raw case.

    Attributes:
        name: Without channel and ending.
        images: One file per channel, or one with all of them.
        label: Its label map, if there is one.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


def nearest_to_median(
    shapes: Sequence[Sequence[float]], spacings: Sequence[Sequence[float]], target: Sequence[float]
) -> int:
    """Return the index of the case whose size is nearest to the median; of equals the first.

    Size is what the network sees, voxels per axis at the spacing of the plans; distance is the sum over the axes of the
    logarithm's difference, for the image as the file has it too, because both decide about seconds.

    Args:
        shapes: Voxels per axis of each case.
        spacings: Millimetres per axis of each case.
        target: Spacing of the plans; the last axes', where a 2-D network leaves the first as it is.

    Example:
        >>> nearest_to_median([(9, 9, 9), (20, 20, 20), (90, 90, 90)], [(1, 1, 1)] * 3, (1, 1, 1))
        1
    """
    sizes = []
    for shape, spacing in zip(shapes, spacings, strict=True):
        wanted = (*spacing[: len(spacing) - len(target)], *target)
        seen = [n * mm / want for n, mm, want in zip(shape, spacing, wanted, strict=True)]
        sizes.append([log(max(n, 1e-6)) for n in (*seen, *shape)])
    middle = [median(values) for values in zip(*sizes, strict=True)]
    distances = [sum(abs(a - b) for a, b in zip(size, middle, strict=True)) for size in sizes]
    return distances.index(min(distances))


def find_median_case(
    preprocessed: Path, plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]
) -> BudgetCase:
    """Return the raw training case of median size, by the fingerprint.

    Args:
        preprocessed: The data set's folder in ``nnUNet_preprocessed``.
        plans: The student's.
        configuration: Its configuration.
        dataset_json: Of the data set.

    Raises:
        UsageError: If ``nnUNet_raw`` or the fingerprint are missing, or do not belong together.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    instead = "or name an image with --budget-case"
    raw = nnunet_folder("nnUNet_raw") / preprocessed.name
    print_file = preprocessed / "dataset_fingerprint.json"
    if not (raw / "imagesTr").is_dir() and "dataset" not in dataset_json:
        raise UsageError(f"expected the raw images of the data set in {raw}, found none; set nnUNet_raw, {instead}")
    if not print_file.is_file():
        number = preprocessed.name[7:10].lstrip("0")
        raise UsageError(f"expected {print_file}; type: nnUNetv2_extract_fingerprint -d {number}, {instead}")
    fingerprint = read_json_object(print_file)
    files = get_filenames_of_train_images_and_targets(str(raw), dict(dataset_json))
    shapes, spacings = fingerprint.get("shapes_after_crop", []), fingerprint.get("spacings", [])
    if not len(files) == len(shapes) == len(spacings) or not files:
        raise UsageError(
            f"{print_file} knows {len(shapes)} cases, {raw} has {len(files)}; type: nnUNetv2_extract_fingerprint "
            f"--clean -d {preprocessed.name[7:10].lstrip('0')}, {instead}"
        )
    order = plans["transpose_forward"]
    target = PlansManager(dict(plans)).get_configuration(configuration).spacing
    index = nearest_to_median(
        [[shape[axis] for axis in order] for shape in shapes],
        [[spacing[axis] for axis in order] for spacing in spacings],
        [float(mm) for mm in target],
    )
    name = list(files)[index]
    label = Path(files[name]["label"])
    return BudgetCase(
        name=name,
        images=tuple(Path(file) for file in files[name]["images"]),
        label=label if label.is_file() else None,
    )
