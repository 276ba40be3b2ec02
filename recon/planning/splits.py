"""Folds by patient, ``splits_final.json``: no patient is trained on and validated with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import read_json, write_json_atomically
from nnunet_kd.recon.data.dataset import RawDataset, Splits, check_splits

FILE = "splits_final.json"
N_FOLDS = 5


def patient_splits(patients: Mapping[str, str], n_folds: int = N_FOLDS) -> Splits:
    """Divide patients into folds as nnU-Net divides cases, and cases with them.

    With one case per patient, named alike, these are nnU-Net's own folds.

    Args:
        patients: Whose each case is.
        n_folds: >= 2.

    Raises:
        UsageError: If there are fewer patients than folds.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    names = sorted(set(patients.values()))
    if len(names) < n_folds:
        raise UsageError(
            f"expected at least {n_folds} patients for {n_folds} folds, got {len(names)}; type --folds with a smaller "
            "number, 0 to train fold 'all' only, or put 'splits' into dataset.json"
        )
    return [
        {
            part: [case for case in sorted(patients) if patients[case] in {str(name) for name in fold[part]}]
            for part in ("train", "val")
        }
        for fold in generate_crossval_split(names, n_splits=n_folds)
    ]


def planned_splits(dataset: RawDataset, folder: Path, n_folds: int | None = None) -> Splits:
    """Return the folds of a data set: those that are there already, its own, or new ones.

    Args:
        dataset: The raw data set.
        folder: ``nnUNet_preprocessed/DatasetXXX_Name``.
        n_folds: Of new ones; 0 makes none, ``None`` five.

    Raises:
        UsageError: If the folds that are there are not so many, name other cases or divide a patient, or there are too
            few patients.
    """
    training = list(dataset.training)
    patients = {case: dataset.patients[case] for case in training}
    path = folder / FILE
    if path.is_file():
        existing: Any = read_json(path)
        if existing != []:
            check_splits(existing, training, dataset.patients, str(path))
        if n_folds not in (None, len(existing)):
            raise UsageError(f"--folds {n_folds}, but {path} has {len(existing)}; leave it out or move that file away")
        return [dict(fold) for fold in existing]
    if dataset.splits is not None and n_folds is None:
        return dataset.splits
    if n_folds == 0:
        return []
    return patient_splits(patients, N_FOLDS if n_folds is None else n_folds)


def write_splits(splits: Splits, folder: Path) -> None:
    """Write ``splits_final.json``."""
    write_json_atomically(splits, folder / FILE)
