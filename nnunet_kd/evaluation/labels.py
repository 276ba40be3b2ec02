"""Which structures are scored: nnU-Net's labels or regions, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import read_segmentation, some

IGNORE = "ignore"  # nnU-Net's name of the label that marks voxels without a truth

_N_LABELS = 2**31


@dataclass(frozen=True, kw_only=True)
class Structure:
    """One class or region.

    Attributes:
        name: As in dataset.json, or the number itself.
        labels: Values in the files that belong to it.
        tolerance: Distance in mm up to which surfaces agree, for the surface Dice.
    """

    name: str
    labels: tuple[int, ...]
    tolerance: float = 1.0

    def mask(self, segmentation: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where the structure is."""
        if len(self.labels) == 1:
            return np.asarray(segmentation == self.labels[0])
        return np.isin(segmentation, self.labels)


@dataclass(frozen=True, kw_only=True)
class LabelScheme:
    """The structures of a data set and the label that does not count.

    Attributes:
        structures: In the order of dataset.json, without the background.
        ignore: Voxels of this value in the reference are left out everywhere.
    """

    structures: tuple[Structure, ...]
    ignore: int | None = None

    def unknown(self, segmentation: NDArray[Any]) -> list[int]:
        """Return the values in a segmentation that are neither background nor a structure nor ignored."""
        known = {0, self.ignore, *(label for structure in self.structures for label in structure.labels)}
        return [int(value) for value in np.unique(segmentation) if int(value) not in known]


def _as_labels(name: str, value: object, source: Path) -> tuple[int, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    if values and all(type(entry) is int and 0 <= entry < _N_LABELS for entry in values):
        return tuple(values)
    raise UsageError(
        f"expected nnU-Net's labels in '{source}' (a name and a number or a list of numbers), "
        f"got '{name}': {value!r:.80}; give nnU-Net's dataset.json with --dataset-json"
    )


def scheme_from_dataset(dataset: Mapping[str, Any], source: Path) -> LabelScheme:
    """Read labels or regions from the content of nnU-Net's dataset.json.

    Args:
        dataset: The content.
        source: Its file, for messages.

    Raises:
        UsageError: If there are no labels in nnU-Net's form.
    """
    named = dataset.get("labels") if isinstance(dataset, dict) else None
    if not isinstance(named, dict):
        raise UsageError(f"expected 'labels' in '{source}', found none; give nnU-Net's dataset.json")
    labels = {str(name): _as_labels(str(name), value, source) for name, value in named.items()}
    ignore = labels.pop(IGNORE, (None,))[0]
    structures = [Structure(name=name, labels=values) for name, values in labels.items() if values != (0,)]
    if not structures:
        raise UsageError(f"expected a structure in 'labels' of '{source}', found background only")
    return LabelScheme(structures=tuple(structures), ignore=ignore)


def scheme_from_values(values: Iterable[int]) -> LabelScheme:
    """Take every value but 0 as a structure of that name.

    Example:
        >>> [structure.name for structure in scheme_from_values({0, 2, 1}).structures]
        ['1', '2']
    """
    return LabelScheme(
        structures=tuple(Structure(name=str(value), labels=(value,)) for value in sorted(set(values) - {0}))
    )


def read_known(file: Path, scheme: LabelScheme) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Read labels and spacing, as :func:`~nnunet_kd.evaluation.cases.read_segmentation` does, of known values only.

    Raises:
        UsageError: If the file cannot be read or holds values that the scheme does not name.
    """
    segmentation, spacing = read_segmentation(file)
    if unknown := scheme.unknown(segmentation):
        raise UsageError(
            f"expected only labels that dataset.json or the reference names in '{file}', found "
            f"{some([str(value) for value in unknown])}; write it again or give --dataset-json"
        )
    return segmentation, spacing


def with_tolerances(scheme: LabelScheme, default: float | None, by_name: Mapping[str, float]) -> LabelScheme:
    """Set the tolerance of every structure.

    Args:
        scheme: The structures.
        default: In mm, for all that are not named; ``None`` leaves theirs.
        by_name: In mm.

    Raises:
        UsageError: If a name is unknown or a tolerance is no distance.
    """
    known = [structure.name for structure in scheme.structures]
    unknown = [name for name in by_name if name not in known]
    if unknown:
        raise UsageError(f"--tolerance names {', '.join(unknown)}; the structures are {', '.join(known)}")
    wrong = [value for value in (default, *by_name.values()) if value is not None and not 0 <= value < float("inf")]
    if wrong:
        raise UsageError(f"expected a distance in mm for --tolerance, got {wrong[0]}; type for example --tolerance 1.0")
    return replace(
        scheme,
        structures=tuple(
            replace(s, tolerance=by_name.get(s.name, s.tolerance if default is None else default))
            for s in scheme.structures
        ),
    )
