"""The BraTS rules of Lachinov et al. (2019): labels from regions, no speck of enhancing tumour, no crumbs.

References:
    Lachinov, Shipunova, Turlapov, Knowledge Distillation for Brain Tumor Segmentation, 2019,
    https://arxiv.org/abs/2002.03688; the steps are those of its public code, https://github.com/lachinov/brats2019
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import Structure, scheme_from_dataset

MIN_ENHANCING = 32
MIN_COMPONENT = 0.1

# Words by which the challenges' editions call each part. The first match counts: "surrounding non-enhancing FLAIR
# hyperintensity" is edema, "necrotic tumor core" is necrosis
_WORDS = {
    "edema": {"edema", "oedema", "edematous", "ed", "snfh", "flair"},
    "necrotic": {"necrotic", "necrosis", "ncr", "net", "netc", "nonenhancing"},
    "enhancing": {"enhancing", "et"},
    "core": {"core", "tc"},
    "whole": {"whole", "wt"},
}


@dataclass(frozen=True, kw_only=True)
class TumourLabels:
    """Values of the tumour's parts in a label map: 2, 1, 4 up to BraTS 2021, 2, 1, 3 since, 1, 2, 3 in nnU-Net's data.

    Attributes:
        edema: Whole tumour outside of its core.
        necrotic: Necrotic and non-enhancing core.
        enhancing: Enhancing core.
    """

    edema: int
    necrotic: int
    enhancing: int


def tumour_labels(dataset: Mapping[str, Any], source: Path) -> TumourLabels:
    """Find the tumour's parts by name in nnU-Net's dataset.json, as labels or as nested regions.

    Other structures, a resection cavity for example, may be there too.

    Args:
        dataset: The content.
        source: Its file, for messages.

    Raises:
        UsageError: If a part is missing, named twice, or no single value.

    Example:
        >>> labels = {"background": 0, "whole tumor": [1, 2, 4], "tumor core": [1, 4], "enhancing tumor": 4}
        >>> tumour_labels({"labels": labels}, Path("dataset.json"))
        TumourLabels(edema=2, necrotic=1, enhancing=4)
    """
    structures = scheme_from_dataset(dataset, source).structures
    named: dict[str, set[frozenset[int]]] = {}
    for structure in structures:
        named.setdefault(_part(structure.name), set()).add(frozenset(structure.labels))
    found = {part: next(iter(values)) for part, values in named.items() if len(values) == 1}
    parts = {
        "edema": _either(found, "edema", "whole", "core"),
        "necrotic": _either(found, "necrotic", "core", "enhancing"),
        "enhancing": found.get("enhancing", frozenset()),
    }
    if any(len(values) != 1 for values in parts.values()) or len(frozenset().union(*parts.values())) != len(parts):
        raise _not_brats(structures, source)
    return TumourLabels(**{part: next(iter(values)) for part, values in parts.items()})


def _part(name: str) -> str:
    words = set(re.findall(r"[a-z]+", re.sub(r"non[- _]enhancing", "nonenhancing", name.lower())))
    return next((part for part, known in _WORDS.items() if words & known), "")


def _either(found: Mapping[str, frozenset[int]], part: str, outer: str, inner: str) -> frozenset[int]:
    """Return a part named by itself, else what an outer region has beyond an inner one."""
    return found[part] if part in found else found.get(outer, frozenset()) - found.get(inner, frozenset())


def _not_brats(structures: Sequence[Structure], source: Path) -> UsageError:
    names = ", ".join(f"{structure.name} {'+'.join(map(str, structure.labels))}" for structure in structures)
    return UsageError(
        "expected the labels edema, necrotic and enhancing (or the regions whole tumor, tumor core and enhancing "
        f"tumor) once each in '{source}', found {names}; give a dataset.json that names them with --dataset-json"
    )


def assemble_regions(
    probabilities: NDArray[np.floating[Any]],
    *,
    labels: TumourLabels,
    threshold: float = 0.5,
    min_enhancing: int = MIN_ENHANCING,
) -> NDArray[np.uint8]:
    """Paint the label map of three regions in the published order: whole tumour, core, enhancing tumour.

    Later regions are painted over earlier ones, also where they leave them. An enhancing region of
    at most ``min_enhancing`` voxels is not painted at all: its voxels stay what lies beneath,
    necrotic in the core.

    Args:
        probabilities: Of whole tumour, tumour core and enhancing tumour, ``(3, *spatial)``, in [0, 1].
        labels: Values to paint.
        threshold: Voxels with more than this belong to a region.
        min_enhancing: In voxels; 32 is too few where 33 is enough.

    Raises:
        ValueError: If there are not three regions.

    Example:
        >>> labels = TumourLabels(edema=2, necrotic=1, enhancing=4)
        >>> probabilities = np.array([[0.9, 0.9, 0.9, 0.1], [0.1, 0.9, 0.9, 0.1], [0.1, 0.1, 0.9, 0.5]])
        >>> assemble_regions(probabilities, labels=labels, min_enhancing=0).tolist()
        [2, 1, 4, 0]
        >>> assemble_regions(probabilities, labels=labels).tolist()
        [2, 1, 1, 0]
    """
    if len(probabilities) != 3:
        raise ValueError(f"expected the regions whole tumour, core and enhancing tumour, got {len(probabilities)}")
    whole, core, enhancing = probabilities > threshold
    segmentation = np.zeros(whole.shape, dtype=np.uint8)
    segmentation[whole] = labels.edema
    segmentation[core] = labels.necrotic
    if np.count_nonzero(enhancing) > min_enhancing:
        segmentation[enhancing] = labels.enhancing
    return segmentation


def remove_small_enhancing(
    segmentation: NDArray[Any], *, labels: TumourLabels, min_enhancing: int = MIN_ENHANCING
) -> NDArray[Any]:
    """Call the enhancing tumour necrotic where the whole case has at most ``min_enhancing`` voxels of it.

    BraTS gives a case without enhancing tumour Dice 0 for a single wrong voxel, and 1 for none.

    Args:
        segmentation: Label map of one case.
        labels: Its values.
        min_enhancing: In voxels; 32 is too few where 33 is enough.

    Returns:
        A new label map.
    """
    cleaned = segmentation.copy()
    enhancing = cleaned == labels.enhancing
    if np.count_nonzero(enhancing) <= min_enhancing:
        cleaned[enhancing] = labels.necrotic
    return cleaned


def remove_small_components(segmentation: NDArray[Any], *, min_share: float = MIN_COMPONENT) -> NDArray[Any]:
    """Clear connected components of the foreground that hold less than a share of all of it.

    Voxels that touch by a corner are connected. Foreground is every value above 0; the published
    code takes the largest cluster for the background instead, which fails where a tumour fills
    more than half of a cropped volume. Nothing is left where every component is small, as with
    eleven equal ones and a share of 0.1.

    Args:
        segmentation: Label map of one case.
        min_share: Of the foreground's voxels, in [0, 1]; a component of exactly this share stays.

    Returns:
        A new label map.

    Example:
        >>> remove_small_components(np.array([1] * 10 + [0, 2])).tolist()
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    """
    from scipy.ndimage import label

    components, n_components = label(segmentation > 0, structure=np.ones((3,) * segmentation.ndim))
    sizes = np.bincount(components.ravel(), minlength=n_components + 1)
    small = sizes < min_share * sizes[1:].sum()
    cleaned = segmentation.copy()
    cleaned[small[components]] = 0
    return cleaned


def clean(
    segmentation: NDArray[Any],
    *,
    labels: TumourLabels,
    min_enhancing: int = MIN_ENHANCING,
    min_component: float = MIN_COMPONENT,
) -> NDArray[Any]:
    """Apply both rules in the published order: enhancing tumour first, then components.

    Args:
        segmentation: Label map of one case.
        labels: Its values.
        min_enhancing: See :func:`remove_small_enhancing`; 0 changes nothing.
        min_component: See :func:`remove_small_components`; 0 changes nothing.

    Returns:
        A new label map.
    """
    kept = remove_small_enhancing(segmentation, labels=labels, min_enhancing=min_enhancing)
    return remove_small_components(kept, min_share=min_component)
