"""Clean-up of a prediction before it is sent in: what organisers' scores punish, removed when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import scheme_from_dataset
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.postprocessing.brats import TumourLabels, remove_small_components, remove_small_enhancing, tumour_labels


@dataclass(frozen=True, kw_only=True)
class CleanUp:
    """What is removed, in values of ours.

    Attributes:
        min_enhancing: Enhancing tumour of fewer voxels in a case becomes necrosis; 0 keeps all.
        tumour: Values of the tumour's parts, where ``min_enhancing`` is asked for.
        min_lesion: Connected components of a structure with fewer voxels are removed; 0 keeps all.
        structures: Value painted and values held of each label or region, in the order of painting.
    """

    min_enhancing: int = 0
    tumour: TumourLabels | None = None
    min_lesion: int = 0
    structures: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __call__(self, labels: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
        """Return the new label map, and how many voxels each of the two rules changed."""
        mended, small = labels, labels
        if self.tumour is not None and self.min_enhancing > 0:
            # the shared rule takes the largest number that is too few
            mended = small = remove_small_enhancing(labels, labels=self.tumour, min_enhancing=self.min_enhancing - 1)
        if self.min_lesion > 0:
            small = remove_small_lesions(mended, structures=self.structures, min_lesion=self.min_lesion)
        return small, int((labels != mended).sum()), int((mended != small).sum())


def remove_small_lesions(
    labels: NDArray[Any], *, structures: tuple[tuple[int, tuple[int, ...]], ...], min_lesion: int
) -> NDArray[Any]:
    """Remove the connected components of every structure that have fewer than some voxels.

    Structures may lie in one another: the voxels of a removed one become what the outer ones paint there, a speck of
    tumour in a kidney becomes kidney, and background where nothing is left. Voxels that touch by a corner are
    connected.

    Args:
        labels: Label map of one case.
        structures: Value painted and values held of each, in the order of painting.
        min_lesion: In voxels, at least 1.

    Returns:
        A new label map.

    Example:
        >>> organ_and_tumour = ((1, (1, 2)), (2, (2,)))
        >>> labels = np.array([1, 1, 2, 1, 0, 2, 0, 1, 2, 2])
        >>> remove_small_lesions(labels, structures=organ_and_tumour, min_lesion=2).tolist()
        [1, 1, 1, 1, 0, 0, 0, 1, 2, 2]
    """
    before, after = np.zeros_like(labels), np.zeros_like(labels)
    for value, held in structures:
        mask = np.isin(labels, held)
        kept = mask
        if n_voxels := int(mask.sum()):
            # half a voxel less: a component of exactly min_lesion stays whatever the share is rounded to
            kept = remove_small_components(mask, min_share=(min_lesion - 0.5) / n_voxels)
        before[mask], after[kept] = value, value
    return np.where(before == after, labels, after)


def prepare_clean_up(dataset_json: Path, *, min_enhancing: int = 0, min_lesion: int = 0) -> CleanUp:
    """Find the values that the rules are about in nnU-Net's dataset.json.

    Args:
        dataset_json: Names of the labels; not read where both numbers are 0.
        min_enhancing: See :class:`CleanUp`.
        min_lesion: See :class:`CleanUp`.

    Raises:
        UsageError: If the file is missing, or has no tumour's parts where they are asked for.
    """
    if not (min_enhancing or min_lesion):
        return CleanUp()
    if not dataset_json.is_file():
        raise UsageError(
            f"expected the names of the labels in {dataset_json}, found none; give nnU-Net's file with --dataset-json"
        )
    dataset = read_json_object(dataset_json)
    return CleanUp(
        min_enhancing=min_enhancing,
        tumour=tumour_labels(dataset, dataset_json) if min_enhancing else None,
        min_lesion=min_lesion,
        structures=_structures(dataset, dataset_json) if min_lesion else (),
    )


def _structures(dataset: Mapping[str, Any], source: Path) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Return what nnU-Net paints and in which order."""
    held = [structure.labels for structure in scheme_from_dataset(dataset, source).structures]
    painted = dataset.get("regions_class_order") or [labels[0] for labels in held if len(labels) == 1]
    if len(painted) != len(held):
        raise UsageError(f"expected regions_class_order with {len(held)} values in {source}, got {painted}; mend it")
    return tuple(zip(painted, held, strict=True))
