"""Folds of a data set in which some labels are pseudo-labels: nobody is scored on those."""

from collections.abc import Mapping, Sequence

from nnunet_kd.errors import UsageError

Splits = list[dict[str, list[str]]]

_FOLDS, _SEED = 5, 12345  # nnU-Net's own


def mixed_splits(labelled: Sequence[str], pseudo: Sequence[str], existing: object | None) -> Splits:
    """Return the folds of the labelled cases, with the pseudo-labelled ones in every training set.

    Args:
        labelled: Names of the cases with labels.
        pseudo: Names of the others.
        existing: Content of the labelled data set's own ``splits_final.json``; ``None`` makes nnU-Net's five folds.

    Returns:
        Per fold ``train`` and ``val``, as nnU-Net keeps them.

    Raises:
        UsageError: If the existing folds name other cases, or there are too few cases to make folds of.

    Example:
        >>> mixed_splits(["a", "b"], ["p"], [{"train": ["a"], "val": ["b"]}])
        [{'train': ['a', 'p'], 'val': ['b']}]
    """
    own = _own_splits(sorted(labelled)) if existing is None else _checked(existing, set(labelled))
    return [{"train": [*fold["train"], *sorted(pseudo)], "val": list(fold["val"])} for fold in own]


def _own_splits(labelled: list[str]) -> Splits:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if len(labelled) < _FOLDS:
        raise UsageError(
            f"--labelled: expected at least {_FOLDS} cases for {_FOLDS} folds, got {len(labelled)}; write a "
            "splits_final.json into its folder in nnUNet_preprocessed"
        )
    folds = generate_crossval_split(labelled, seed=_SEED, n_splits=_FOLDS)
    return [{part: [str(case) for case in fold[part]] for part in ("train", "val")} for fold in folds]


def _checked(existing: object, labelled: set[str]) -> Splits:
    usable = isinstance(existing, list) and all(
        isinstance(fold, Mapping) and isinstance(fold.get("train"), list) and isinstance(fold.get("val"), list)
        for fold in existing
    )
    if not usable or not existing:
        raise UsageError(
            "--labelled: expected folds with 'train' and 'val' in its splits_final.json; mend or delete the file"
        )
    folds: Splits = existing  # type: ignore[assignment]  # as checked
    unknown = sorted({case for fold in folds for part in ("train", "val") for case in fold[part]} - labelled)
    if unknown:
        raise UsageError(
            f"--labelled: its splits_final.json names {unknown[0]}, of which it has no images; mend or delete the file"
        )
    return folds
