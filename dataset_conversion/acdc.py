"""ACDC, the cardiac challenge of 2017: per patient a film of the heart and the two phases that are segmented."""

import re
from collections.abc import Iterator
from pathlib import Path

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission, Volume
from nnunet_kd.dataset_conversion.incoming.look_alikes import refuse_look_alikes
from nnunet_kd.errors import UsageError

_SOURCE = "a folder with training/patient001 (Info.cfg, patient001_frame01.nii.gz, ...) and perhaps testing/patient101"
_ENDING = ".nii.gz"
_PARTS = ("training", "testing", ".", "database/training", "database/testing")
_PHASES = ("ED", "ES")
_FIRST_TEST_PATIENT = 101

_DESCRIPTION = DatasetDescription(
    dataset_id=27,
    name="ACDC",
    channel_names=("cineMRI",),
    labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3},
    licence="terms of the challenge, https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    reference="https://www.creatis.insa-lyon.fr/Challenge/acdc/",
    release="2017",
    description="Right ventricle, myocardium and left ventricle in cine MRI, end of diastole and of systole",
    file_ending=_ENDING,
)


def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read both phases of every patient; the two stay in one fold.

    Patients from 101 on are test cases, whether the download has their labels or not.

    Args:
        source: The unpacked ``database``, the folder above, or one of patients.

    Raises:
        UsageError: If there are no patients, or folders named almost like one.
    """
    folders = [
        path
        for part in _PARTS
        for path in sorted((source / part).glob("patient*"))
        if re.fullmatch(r"patient\d{3}", path.name) and path.is_dir()
    ]
    if not folders:
        raise UsageError(f"expected {_SOURCE}; there is no folder of a patient in {source}")
    beside = [path for part in _PARTS for path in (source / part).glob("*") if path.is_dir()]
    refuse_look_alikes(beside, nearly=r"patient\W*\d", exactly=r"patient\d{3}", example="patient001")
    return _DESCRIPTION, [case for folder in folders for case in _cases(folder)]


def _cases(folder: Path) -> Iterator[Case]:
    patient = folder.name
    is_test = int(patient.removeprefix("patient")) >= _FIRST_TEST_PATIENT
    for phase in _PHASES:
        image = _frame(folder, phase)
        label = None if is_test else image.with_name(image.name.replace(_ENDING, f"_gt{_ENDING}"))
        yield Case(name=f"{patient}_{phase}", images=(Volume(path=image),), label=label, patient=patient)


def _frame(folder: Path, phase: str) -> Path:
    """Return the image of a phase; where that is not known, a path that is missing and says why."""
    listing = folder / "Info.cfg"
    text = listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else None
    frame = re.search(rf"^\s*{phase}\s*:\s*(\d{{1,4}})\s*$", text or "", re.MULTILINE)
    unknown = "<no Info.cfg>" if text is None else f"<no {phase} in Info.cfg>"
    return folder / f"{folder.name}_frame{f'{int(frame[1]):02d}' if frame else unknown}{_ENDING}"


def _file_name(case: str) -> str:
    return f"{case}{_ENDING}"


CHALLENGES = {
    "acdc": Challenge(
        summary="both ventricles and the myocardium in cine MRI, ACDC 2017",
        source=_SOURCE,
        read_source=read_source,
        submission=Submission(
            file_name=_file_name,
            label_values={0: 0, 1: 1, 2: 2, 3: 3},
            cases=tuple(f"patient{number}_{phase}" for number in range(101, 151) for phase in _PHASES),
        ),
    )
}
