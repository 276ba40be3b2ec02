"""KiTS, the kidney tumour challenges of 2019, 2021 and 2023: one folder per case."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission, Volume
from nnunet_kd.dataset_conversion.incoming.look_alikes import refuse_look_alikes
from nnunet_kd.errors import UsageError

_SOURCE = "a folder with one folder per case, case_00000/imaging.nii.gz, as the organisers' repository has it in {}"
_ENDING = ".nii.gz"
_IMAGE = f"imaging{_ENDING}"
_FOLDERS = (".", "data", "dataset", "kits21/data")  # of the cases, in clones of the three repositories
_ANNOTATION = re.compile(r"(kidney|cyst|tumor)_instance-(\d+)_annotation-(\d+)\.nii\.gz")
_PAINTED = {"kidney": 1, "cyst": 3, "tumor": 2}  # the organisers' order: what comes later lies above
_ANNOTATIONS = (1, 2, 3)


def _description(year: int, dataset_id: int, variant: str = "") -> DatasetDescription:
    # the scores are those of nested classes; painted in this order, their masks give the label map back
    labels: Mapping[str, int | tuple[int, ...]] = (
        {"background": 0, "kidney": (1, 2), "tumor": 2}
        if year == 2019
        else {"background": 0, "kidney": (1, 2, 3), "masses": (2, 3), "tumor": 2}
    )
    return DatasetDescription(
        dataset_id=dataset_id,
        name=f"KiTS{year}{variant}",
        channel_names=("CT",),
        labels=labels,
        regions_class_order=(1, 2) if year == 2019 else (1, 3, 2),
        licence=f"CC BY-NC-SA, see https://github.com/neheller/kits{year % 100}",
        reference=f"https://github.com/neheller/kits{year % 100}",
        release=str(year),
        description=f"Kidneys and their tumours{'' if year == 2019 else ' and cysts'} in CT",
        file_ending=_ENDING,
    )


def read_2019(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the cases of KiTS19; those from 210 on without a label are test cases.

    Args:
        source: Clone of the organisers' repository, its ``data`` folder, or any folder of cases.

    Raises:
        UsageError: If there are no cases, no images, or cases of a later year.
    """
    folders = _case_folders(source)
    if later := [folder.name for folder in folders if _number(folder) >= 300]:
        raise UsageError(f"expected the cases 0 to 299 of KiTS19 in {source}, got {later[0]}; type kits23")
    return _description(2019, 64), [_case(folder, f"segmentation{_ENDING}", test_from=210) for folder in folders]


def aggregated(rule: str) -> Callable[[Path], tuple[DatasetDescription, list[Case]]]:
    """Return the reader of KiTS21 with one of the label maps that unite its annotations.

    Its source is a clone of the organisers' repository, its ``data`` folder, any folder of cases, or one of test
    images ``case_XXXXX.nii.gz``.

    Args:
        rule: ``MAJ`` (majority of the annotations of each instance), ``OR`` or ``AND``.
    """

    def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
        variant = "" if rule == "MAJ" else f"_{rule}"
        return _description(2021, 135, variant), _labelled_cases(source, f"aggregated_{rule}_seg{_ENDING}")

    return read_source


def read_2023(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the cases of KiTS23; images ``case_XXXXX.nii.gz`` beside them are test cases.

    Args:
        source: Clone of the organisers' repository, its ``dataset`` folder, any folder of cases or of test images.

    Raises:
        UsageError: If there are no cases, no images, or no label maps.
    """
    return _description(2023, 220), _labelled_cases(source, f"segmentation{_ENDING}")


def read_single(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the cases of KiTS21 with one annotation of each instance in place of what unites them.

    A scan becomes three cases, ``case_00000_annotation-1`` to ``-3``, that stay in one fold. Kidneys are painted
    first, then cysts, then tumours, as the organisers do. An instance with fewer annotations lends the last one
    before, or its first, so that no instance is ever background.

    Args:
        source: Clone of the organisers' repository, its ``data`` folder, or any folder of cases.

    Raises:
        UsageError: If there are no cases, no images, or no annotations.
    """
    folders = _case_folders(source)
    if not any((folder / "segmentations").is_dir() for folder in folders):
        raise UsageError(f"expected segmentations in the case folders of {source}, but none has it; type kits21")
    cases = [_single_case(folder, number) for folder in folders for number in _ANNOTATIONS]
    return _description(2021, 135, "_single"), cases


def _single_case(folder: Path, number: int) -> Case:
    annotated: dict[tuple[str, int], dict[int, Path]] = defaultdict(dict)
    for path in sorted((folder / "segmentations").glob(f"*{_ENDING}")):
        if match := _ANNOTATION.fullmatch(path.name):
            annotated[match[1], int(match[2])][int(match[3])] = path
    layers = [
        (annotated[structure, instance][_nearest(annotated[structure, instance], number)], value)
        for structure, value in _PAINTED.items()
        for structure_there, instance in sorted(annotated)
        if structure_there == structure
    ] or [(folder / "segmentations" / f"kidney_instance-1_annotation-{number}{_ENDING}", _PAINTED["kidney"])]
    return Case(
        name=f"{folder.name}_annotation-{number}",
        images=(Volume(path=folder / _IMAGE),),
        label=layers[0][0],
        patient=folder.name,
        label_layers=tuple(layers),
    )


def _nearest(annotations: Mapping[int, Path], number: int) -> int:
    return max((there for there in annotations if there <= number), default=min(annotations))


def _labelled_cases(source: Path, label: str) -> list[Case]:
    tests = list(_test_images(source))
    folders = _case_folders(source, required=not tests)
    if folders and not any((folder / label).exists() for folder in folders):
        raise UsageError(f"expected {label} in the case folders of {source}, but none has it; clone the repository")
    return [*(_case(folder, label) for folder in folders), *tests]


def _test_images(source: Path) -> Iterator[Case]:
    """Yield the images that come without a folder of their own, as test images do."""
    found = sorted((*source.glob(f"*{_ENDING}"), *source.glob(f"test/*{_ENDING}")))
    refuse_look_alikes(
        found, nearly=r"case[\W_]*\d", exactly=rf"case_\d{{5}}{re.escape(_ENDING)}", example=f"case_00000{_ENDING}"
    )
    for path in found:
        name = path.name.removesuffix(_ENDING)
        if re.fullmatch(r"case_\d{5}", name):
            yield Case(name=name, images=(Volume(path=path),), label=None)


def _case_folders(source: Path, *, required: bool = True) -> list[Path]:
    for below in _FOLDERS:
        found = sorted(path for path in (source / below).glob("case_*") if path.is_dir())
        if folders := [path for path in found if re.fullmatch(r"case_\d{5}", path.name)]:
            break
    else:
        if required:
            raise UsageError(f"expected {_SOURCE.format('data or dataset')}; there is no case_XXXXX in {source}")
        return []
    beside = [path for path in (source / below).iterdir() if path.is_dir()]
    refuse_look_alikes(beside, nearly=r"case[\W_]*\d", exactly=r"case_\d{5}", example="case_00000")
    if not any((folder / _IMAGE).exists() for folder in folders):
        raise UsageError(
            f"expected {_IMAGE} in {folders[0]}, but no case has one; the repository holds labels alone: "
            "run its download script (get_imaging, since 2023 kits23_download_data)"
        )
    return folders


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("case_"))


def _case(folder: Path, label: str, *, test_from: int | None = None) -> Case:
    """Return the case of a folder; a missing label is a fault before ``test_from``."""
    is_test = test_from is not None and _number(folder) >= test_from and not (folder / label).exists()
    return Case(name=folder.name, images=(Volume(path=folder / _IMAGE),), label=None if is_test else folder / label)


def _same_name(case: str) -> str:
    return f"{case}{_ENDING}"


def _prediction_name(case: str) -> str:
    return f"prediction_{case.removeprefix('case_')}{_ENDING}"


_KITS21 = Submission(
    file_name=_same_name,
    label_values={0: 0, 1: 1, 2: 2, 3: 3},
    archive="folder",
    container=True,
    note="the organisers run a container on images that nobody has; the folder is for a test of it",
)

CHALLENGES = {
    "kits19": Challenge(
        summary="kidneys and tumours in CT, KiTS 2019",
        source=_SOURCE.format("data"),
        read_source=read_2019,
        submission=Submission(
            file_name=_prediction_name,
            label_values={0: 0, 1: 1, 2: 2},
            cases=tuple(f"case_{number:05d}" for number in range(210, 300)),
            note="the organisers ask for a manuscript beside the archive",
        ),
    ),
    "kits21": Challenge(
        summary="kidneys, tumours and cysts in CT, KiTS 2021, majority of the annotations",
        source=_SOURCE.format("kits21/data"),
        read_source=aggregated("MAJ"),
        submission=_KITS21,
    ),
    "kits21-or": Challenge(
        summary="KiTS 2021, union of the annotations",
        source=_SOURCE.format("kits21/data"),
        read_source=aggregated("OR"),
        submission=_KITS21,
    ),
    "kits21-and": Challenge(
        summary="KiTS 2021, intersection of the annotations",
        source=_SOURCE.format("kits21/data"),
        read_source=aggregated("AND"),
        submission=_KITS21,
    ),
    "kits21-single": Challenge(
        summary="KiTS 2021, each annotation by itself: three cases per scan",
        source=_SOURCE.format("kits21/data"),
        read_source=read_single,
        submission=_KITS21,
    ),
    "kits23": Challenge(
        summary="kidneys, tumours and cysts in CT, KiTS 2023",
        source=_SOURCE.format("dataset"),
        read_source=read_2023,
        submission=Submission(file_name=_same_name, label_values={0: 0, 1: 1, 2: 2, 3: 3}),
    ),
}
