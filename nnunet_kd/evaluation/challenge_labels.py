"""What a challenge scores, found by name among the labels or regions of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import LabelScheme, Structure, read_known
from nnunet_kd.optional import require


@dataclass(frozen=True, kw_only=True)
class Target:
    """A structure that a challenge scores.

    Attributes:
        name: In reports, and of such a region in dataset.json.
        classes: Their union is the structure.
        synonyms: Other names of such a region.
        tolerance: Of the surface Dice, in mm, where the challenge has one.
    """

    name: str
    classes: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    tolerance: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """All that a challenge labels and scores.

    Attributes:
        classes: Every class by its name in ``targets``, with other names of it.
        targets: What is scored, in order.
    """

    classes: Mapping[str, tuple[str, ...]]
    targets: tuple[Target, ...]


def plain_name(name: str) -> str:
    """Return a name as it is compared: lower case, one spelling of tumour, blanks between words.

    Example:
        >>> plain_name("Non-enhancing_Tumour ")
        'non enhancing tumor'
    """
    return " ".join(name.lower().replace("tumour", "tumor").replace("_", " ").replace("-", " ").split())


def _by_target_or_class(
    scheme: LabelScheme, names: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> dict[str, tuple[int, ...]] | None:
    """Return the labels under each of the names, ``None`` unless each is there once and nothing else is."""
    known = {plain_name(other): name for name, others in names.items() for other in (name, *others)}
    found = [(known.get(plain_name(structure.name), ""), structure.labels) for structure in scheme.structures]
    labels = dict(found)
    fits = sorted(name for name, _ in found) == sorted(names)
    return labels if fits and all(len(set(labels[name])) == sizes[name] for name in names) else None


def _nested_alike(labels: Mapping[str, tuple[int, ...]], targets: tuple[Target, ...]) -> bool:
    return all(
        set(first.classes).issubset(second.classes) == set(labels[first.name]).issubset(labels[second.name])
        for first in targets
        for second in targets
    )


def fit_anatomy(scheme: LabelScheme, source: str, *, anatomy: Anatomy, scores: str) -> LabelScheme:
    """Return what a challenge scores in place of the structures of a data set.

    Classes and regions are told apart by name, because the same numbers mean other tissues in other releases;
    regions must also hold as many labels, and lie in one another, as the challenge's.

    Args:
        scheme: Of the data set: either the challenge's classes or its regions.
        source: Where it comes from, for messages.
        anatomy: What the challenge labels and scores.
        scores: Name of the set of scores, for messages.

    Raises:
        UsageError: If the data set has other structures, or an ignore label.
    """
    refuse_ignore(scheme, source, scores)
    targets = anatomy.targets
    classes = _by_target_or_class(scheme, anatomy.classes, dict.fromkeys(anatomy.classes, 1))
    if classes is not None:
        chosen = {target.name: tuple(classes[part][0] for part in target.classes) for target in targets}
    else:
        regions = _by_target_or_class(
            scheme, {t.name: t.synonyms for t in targets}, {t.name: len(t.classes) for t in targets}
        )
        if regions is None or not _nested_alike(regions, targets):
            raise UsageError(
                f"expected for --scores {scores} the labels {', '.join(anatomy.classes)}, or the regions "
                f"{', '.join(f'{t.name} ({len(t.classes)} labels)' for t in targets)}, found {_described(scheme)} in "
                f"{source}; give the dataset.json that names them with --dataset-json"
            )
        chosen = regions
    return LabelScheme(
        structures=tuple(Structure(name=t.name, labels=chosen[t.name], tolerance=t.tolerance) for t in targets)
    )


def _described(scheme: LabelScheme) -> str:
    return ", ".join(f"'{s.name}' ({', '.join(map(str, s.labels))})" for s in scheme.structures)


def refuse_ignore(scheme: LabelScheme, source: str, scores: str) -> None:
    """Refuse a data set with an ignore label.

    Raises:
        UsageError: If it has one.
    """
    if scheme.ignore is not None:
        raise UsageError(
            f"--scores {scores} knows no ignore label, {source} names one ({scheme.ignore}); "
            "score whole segmentations, or leave --scores out"
        )


def check_nothing_else(source: str, files: Mapping[str, Path], scheme: LabelScheme) -> None:
    """Pass: label maps are enough. A summary.json is not, so that a set needs some check."""


def check_label_maps(source: str, files: Mapping[str, Path], scheme: LabelScheme) -> None:  # noqa: ARG001  # a set's check
    """Check that there is the library for distances, which scores of label maps need beside them.

    Raises:
        UsageError: If it is not installed.
    """
    require("surface_distance")


def read_volumes(files: tuple[Path, Path], scheme: LabelScheme) -> tuple[NDArray[Any], NDArray[Any], tuple[float, ...]]:
    """Read reference, prediction and the spacing of one case, in array order.

    Raises:
        UsageError: If a file cannot be read, holds values that the scheme does not name, or is no volume.
    """
    reference, spacing = read_known(files[0], scheme)
    prediction, _ = read_known(files[1], scheme)
    if reference.ndim != 3:
        raise UsageError(f"expected volumes for a challenge's scores, '{files[0]}' has {reference.ndim} axes")
    return reference, prediction, spacing


def structure_masks(
    reference: NDArray[Any], prediction: NDArray[Any], scheme: LabelScheme
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return where each structure is, in the reference and in the prediction."""
    return [(structure.mask(reference), structure.mask(prediction)) for structure in scheme.structures]
