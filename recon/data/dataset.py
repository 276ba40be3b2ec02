"""Raw data sets: ``nnUNet_raw/DatasetXXX_Name`` with ``dataset.json``, ``kspaceTr`` and ``kspaceTs``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_number
from nnunet_kd.planning.model_folder import nnunet_folder, one_dataset, read_json_object
from nnunet_kd.recon.data.cases import ENDING

TASKS = ("reconstruction", "super_resolution")
ACQUISITIONS = ("single_coil", "multi_coil")
MEASURED = "measured"
MAGNITUDE_DERIVED = "retrospective, magnitude-derived"
SIMULATED = "retrospective, simulated"
ORIGINS = (MEASURED, MAGNITUDE_DERIVED, SIMULATED)
# case files say what they were made of, and keep it when they are converted once more
ORIGIN_OF_SOURCE = {
    "nifti": MAGNITUDE_DERIVED,
    "hdf5": MAGNITUDE_DERIVED,
    "kd_mri": MAGNITUDE_DERIVED,
    "phantom": SIMULATED,
}
TRAINING, TEST = "kspaceTr", "kspaceTs"
DATASET_JSON = "dataset.json"
Splits = list[dict[str, list[str]]]


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A raw data set, checked.

    Attributes:
        folder: ``DatasetXXX_Name``.
        settings: Content of ``dataset.json``: ``task``, ``name``, ``acquisition``, ``kspace``, ``sampling`` or
            ``truncation``, ``patients``, ``splits``, ``numTraining``, ``file_ending``, ...
        training: File of each case to train on, in the order of names.
        test: File of each test case.
        patients: Whose each case is.
    """

    folder: Path
    settings: Mapping[str, Any]
    training: Mapping[str, Path]
    test: Mapping[str, Path]
    patients: Mapping[str, str]

    @property
    def name(self) -> str:
        """``DatasetXXX_Name``."""
        return self.folder.name

    @property
    def splits(self) -> Splits | None:
        """The source's own folds, ``train`` and ``val`` in each; ``None`` without."""
        return self.settings.get("splits")


def find_raw_folder(text: str) -> Path:
    """Return a data set's folder in ``nnUNet_raw``, by number or name, or a folder given by its path.

    Raises:
        UsageError: If there is none, or more than one.
    """
    if Path(text).name != text and (Path(text) / DATASET_JSON).is_file():
        return Path(text)
    return one_dataset(text, nnunet_folder("nnUNet_raw"), "nnunet_kd recon convert FORMAT -i FOLDER")


def open_dataset(text: str | Path) -> RawDataset:
    """Open a raw data set and check what can be checked without reading k-space.

    Args:
        text: Number or name of a data set in ``nnUNet_raw``, or the path of its folder.

    Raises:
        UsageError: One line, naming file and key, if ``dataset.json`` is missing or wrong, files are missing, or a
            patient is in two splits.
    """
    folder = find_raw_folder(str(text))
    path = folder / DATASET_JSON
    settings = read_json_object(path)
    training, test = _cases(folder / TRAINING), _cases(folder / TEST)
    check_settings(settings, [*training], [*test], str(path))
    sampling = settings.get("sampling", {})
    if sampling.get("file"):  # lies in the data set, and is read from wherever the program runs
        sampling["file"] = str(folder.resolve() / sampling["file"])
    patients = {case: settings.get("patients", {}).get(case, case) for case in (*training, *test)}
    return RawDataset(folder=folder, settings=settings, training=training, test=test, patients=patients)


def _cases(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = sorted(file for file in folder.iterdir() if file.name.endswith(ENDING) and not file.name.startswith("."))
    return {file.name.removesuffix(ENDING): file for file in files}


def check_settings(settings: Mapping[str, Any], training: Sequence[str], test: Sequence[str], where: str) -> None:
    """Check the content of a ``dataset.json`` against the cases of its folder.

    Args:
        settings: The content.
        training: Cases in ``kspaceTr``.
        test: Cases in ``kspaceTs``.
        where: How to name the file in messages.

    Raises:
        UsageError: One line, naming file and key.
    """
    check_choice(settings.get("task"), TASKS, f"{where}, task")
    check_choice(settings.get("acquisition"), ACQUISITIONS, f"{where}, acquisition")
    check_choice(settings.get("kspace"), ORIGINS, f"{where}, kspace")
    check_degradation(settings, where)
    check_number(settings.get("numTraining"), f"{where}, numTraining", at_least=0, whole=True)
    if settings["numTraining"] != len(training):
        raise UsageError(
            f"{where}, numTraining: expected {settings['numTraining']} cases in {TRAINING}, found {len(training)}"
        )
    twice = sorted(set(training) & set(test))
    if twice:
        raise UsageError(f"{where}: expected every case once, but '{twice[0]}' is in {TRAINING} and {TEST}")
    patients = _patients(settings, [*training, *test], where)
    check_patients({TRAINING: training, TEST: test}, patients, where)
    check_splits(settings.get("splits"), training, patients, f"{where}, splits")


def check_degradation(settings: Mapping[str, Any], where: str) -> None:
    """Check that a data set says how it is degraded: masks for reconstruction, truncation for super-resolution.

    Raises:
        UsageError: One line, naming file and key.
    """
    wanted, other = ("sampling", "truncation")[:: 1 if settings["task"] == "reconstruction" else -1]
    if not isinstance(settings.get(wanted), Mapping) or other in settings:
        found = [key for key in ("sampling", "truncation") if key in settings]
        raise UsageError(f"{where}: expected '{wanted}' for task {settings['task']}, found {found or 'neither'}")
    if wanted == "truncation":
        factor = settings[wanted].get("factor")
        if not isinstance(factor, list) or len(factor) != 2:
            raise UsageError(f"{where}, truncation, factor: expected [FY, FX], got {factor!r}")
        for value in factor:
            check_number(value, f"{where}, truncation, factor", at_least=1)


def _patients(settings: Mapping[str, Any], cases: Sequence[str], where: str) -> dict[str, str]:
    patients = settings.get("patients", {})
    if not isinstance(patients, Mapping) or not all(isinstance(patient, str) for patient in patients.values()):
        raise UsageError(f"{where}, patients: expected an object {{case: patient}}, got {patients!r:.80}")
    return {case: patients.get(case, case) for case in cases}


def check_patients(parts: Mapping[str, Sequence[str]], patients: Mapping[str, str], where: str) -> None:
    """Refuse a patient that is in two parts.

    Args:
        parts: Cases by the part's name.
        patients: Whose each case is.
        where: How to name the place in messages.

    Raises:
        UsageError: Names the patient, both parts and a case in each.

    Example:
        >>> check_patients({"train": ["a"], "val": ["b"]}, {"a": "1", "b": "2"}, "dataset.json")
    """
    seen: dict[str, tuple[str, str]] = {}
    for part, cases in parts.items():
        for case in cases:
            other, first = seen.setdefault(patients[case], (part, case))
            if other != part:
                raise UsageError(
                    f"{where}: expected each patient in one part, but patient '{patients[case]}' "
                    f"is in {other} ('{first}') and {part} ('{case}')"
                )


def check_splits(splits: object, training: Sequence[str], patients: Mapping[str, str], where: str) -> None:
    """Check folds as nnU-Net writes them: a list of ``{"train": [...], "val": [...]}``.

    Args:
        splits: The folds; ``None`` for none.
        training: Cases they may name.
        patients: Whose each case is.
        where: How to name the place in messages.

    Raises:
        UsageError: If they have another form, name an unknown case, or a patient is in both parts of a fold.
    """
    if splits is None:
        return
    if not isinstance(splits, list) or not splits:
        raise UsageError(f'{where}: expected a list of {{"train": [...], "val": [...]}}, got {splits!r:.80}')
    for number, fold in enumerate(splits):
        if not isinstance(fold, Mapping) or set(fold) != {"train", "val"} or not fold["train"] or not fold["val"]:
            raise UsageError(f"{where}, fold {number}: expected cases under 'train' and 'val', got {fold!r:.80}")
        unknown = sorted({*fold["train"], *fold["val"]} - set(training))
        if unknown:
            raise UsageError(f"{where}, fold {number}: expected cases of {TRAINING}, got '{unknown[0]}'")
        check_patients(fold, patients, f"{where}, fold {number}")


def dataset_name(number: int, name: str) -> str:
    """Return ``DatasetXXX_Name``.

    Raises:
        UsageError: If the number is not from 1 to 999 or the name has other signs than letters, digits and ``_``.

    Example:
        >>> dataset_name(4, "Knee")
        'Dataset004_Knee'
    """
    if not 0 < number < 1000:
        raise UsageError(f"expected a data set number from 1 to 999, got {number}; type -d ID")
    if not re.fullmatch(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*", name):
        raise UsageError(f"expected a name of letters, digits and single underscores, got '{name}'; type -n NAME")
    return f"Dataset{number:03d}_{name}"
