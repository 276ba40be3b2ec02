"""Folds over patients: no patient is trained on in the fold that scores it."""

from collections.abc import Sequence

from nnunet_kd.dataset_conversion.challenge import Case

Splits = list[dict[str, list[str]]]

_FOLDS, _SEED = 5, 12345  # nnU-Net's own


def patient_folds(cases: Sequence[Case]) -> tuple[Splits | None, str]:
    """Return nnU-Net's ``splits_final.json`` over patients, where patients and cases differ.

    Patients in the order of their names are dealt out as nnU-Net deals out cases: five folds, seed 12345.

    Args:
        cases: All cases; those without label are left out.

    Returns:
        Per fold ``train`` and ``val``, or ``None``; and one line that says which.

    Example:
        >>> patient_folds([Case(name="a", images=(), label=None)])
        (None, "nnU-Net's own: every case is a patient of its own")
    """
    of_patient: dict[str, list[str]] = {}
    for case in cases:
        if case.label is not None:
            of_patient.setdefault(case.patient or case.name, []).append(case.name)
    if all(len(names) == 1 for names in of_patient.values()):
        return None, "nnU-Net's own: every case is a patient of its own"
    if len(of_patient) < _FOLDS:
        return None, (
            f"none: {_FOLDS} folds need {_FOLDS} patients, there are {len(of_patient)}; "
            "nnU-Net's own would put cases of one patient into several"
        )
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = generate_crossval_split(sorted(of_patient), seed=_SEED, n_splits=_FOLDS)
    splits = [
        {part: sorted(name for patient in fold[part] for name in of_patient[str(patient)]) for part in ("train", "val")}
        for fold in folds
    ]
    return splits, f"{_FOLDS} over {len(of_patient)} patients"
