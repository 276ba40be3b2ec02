"""Who trains, who validates, who tests: the source's own parts or chosen ones, never a patient in two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import suggestion
from nnunet_kd.planning.model_folder import read_json, read_json_object
from nnunet_kd.recon.data.dataset import TEST as TEST_FOLDER
from nnunet_kd.recon.data.dataset import TRAINING as TRAINING_FOLDER
from nnunet_kd.recon.data.dataset import Splits, check_patients, check_splits
from nnunet_kd.recon.data.formats.source import TEST, TRAIN, VAL, SourceCase


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """What can be chosen about patients and splits.

    Attributes:
        test_patients: Whose cases go to ``kspaceTs``; ``None`` for the source's own test cases.
        splits: A JSON file with folds as in nnU-Net's ``splits_final.json``; its names are cases or patients.
        patients: A JSON file ``{case: patient}``, for sources whose names do not tell.
        own_splits: Whether the source's training and validation parts become the one fold.
    """

    test_patients: Sequence[str] | None = None
    splits: Path | None = None
    patients: Path | None = None
    own_splits: bool = True


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where every case goes.

    Attributes:
        training: Names, sorted.
        test: Names, sorted.
        patients: Whose each case is.
        splits: Folds over the training cases; ``None`` leaves them to preprocessing.
    """

    training: Sequence[str]
    test: Sequence[str]
    patients: Mapping[str, str]
    splits: Splits | None = None


def deal_out(cases: Sequence[SourceCase], found: Mapping[str, str], options: SplitOptions) -> Parts:
    """Decide where every case goes.

    Args:
        cases: Of the source, with its own parts.
        found: Whose each case is, as far as the source says.
        options: What was chosen.

    Raises:
        UsageError: If a patient would be in two parts, or a name is unknown; one line.

    Example:
        >>> cases = [SourceCase(name=name, files=()) for name in ("a", "b")]
        >>> deal_out(cases, {"a": "1", "b": "2"}, SplitOptions(test_patients=["2"])).test
        ['b']
    """
    patients = {**found, **_read_patients(options.patients, found)}
    test = sorted(_test_cases(cases, patients, options))
    training = sorted(set(patients) - set(test))
    check_patients({TRAINING_FOLDER: training, TEST_FOLDER: test}, patients, "patients")
    if options.splits is not None:
        splits: Splits | None = _read_splits(options.splits, training, patients)
    else:
        splits = _source_splits(cases, test) if options.own_splits else None
    where = str(options.splits or "the source's parts (or type --no-splits)")
    check_splits(splits, training, patients, where)
    return Parts(training=training, test=test, patients=patients, splits=splits)


def _read_patients(path: Path | None, known: Mapping[str, str]) -> dict[str, str]:
    if path is None:
        return {}
    content = read_json_object(path)
    for case, patient in content.items():
        if case not in known:
            raise UsageError(f"{path}: expected cases of the source, got '{case}'{suggestion(case, known)}")
        if not isinstance(patient, str) or not patient:
            raise UsageError(f"{path}, {case}: expected the name of a patient, got {patient!r}")
    return content


def _test_cases(cases: Sequence[SourceCase], patients: Mapping[str, str], options: SplitOptions) -> list[str]:
    if options.test_patients is None:
        return [case.name for case in cases if case.part == TEST]
    wanted = set(options.test_patients)
    unknown = sorted(wanted - set(patients.values()))
    if unknown:
        hint = suggestion(unknown[0], set(patients.values()))
        raise UsageError(f"--test-patients: expected patients of the source, got '{unknown[0]}'{hint}")
    # the source's own tests often have no target, and so cannot train
    return [case.name for case in cases if patients[case.name] in wanted or case.part == TEST]


def _source_splits(cases: Sequence[SourceCase], test: Sequence[str]) -> Splits | None:
    fold = {
        part: sorted(case.name for case in cases if case.part == part and case.name not in test)
        for part in (TRAIN, VAL)
    }
    return [{"train": fold[TRAIN], "val": fold[VAL]}] if fold[TRAIN] and fold[VAL] else None


def _read_splits(path: Path, training: Sequence[str], patients: Mapping[str, str]) -> Splits:
    content = read_json(path)
    check_form = isinstance(content, list) and all(
        isinstance(fold, dict) and all(isinstance(names, list) for names in fold.values()) for fold in content
    )
    if not check_form:
        raise UsageError(f'{path}: expected a list of {{"train": [...], "val": [...]}}, got {content!r:.80}')
    of_patient: dict[str, list[str]] = {}
    for case in training:
        of_patient.setdefault(patients[case], []).append(case)

    def cases_of(name: str) -> list[str]:
        return [name] if name in training else of_patient.get(name, [name])

    return [
        {part: sorted({case for name in names for case in cases_of(str(name))}) for part, names in fold.items()}
        for fold in content
    ]
