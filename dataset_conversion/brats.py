"""BraTS 2018 to 2024: adult glioma, and the tumours that share its layout since 2023.

A year alone is the adult glioma; another tumour of that year follows a hyphen, ``brats2023-men``.

References:
    Labels: https://www.med.upenn.edu/cbica/brats2019/tasks.html (1, 2, 4) and, since 2023, the organisers' metrics,
    https://github.com/rachitsaluja/BraTS-2023-Metrics and https://github.com/rachitsaluja/BraTS-2024-Metrics.
    Submissions: https://github.com/Sage-Bionetworks-Challenges/brats-dream-challenge-website (2021, page 612082) and
    https://github.com/Sage-Bionetworks-Challenges/brats2023 (evaluation/lesionwise/validate.py, validate2024.py).
    Channels and order of regions: nnU-Net's Dataset137_BraTS21.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nnunet_kd.dataset_conversion.brats_cases import (
    CaseFolder,
    Naming,
    case_folders,
    common_ending,
    labelled_cases,
    unlabelled_cases,
)
from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission
from nnunet_kd.errors import UsageError

_CHANNELS = ("T1", "T1ce", "T2", "Flair")
_GRID = (240, 240, 155)
_POST_TREATMENT_GRID = (182, 218, 182)
_QFORM_2023 = ((-1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 239.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
_SUFFIXES_2023 = ("t1n", "t1c", "t2w", "t2f")
_POOL = "brats-pool"
_POOL_NUMBER = 239


@dataclass(frozen=True, kw_only=True)
class _Tissues:
    """Labels of ours; regions are painted in the order of their values.

    Attributes:
        labels: Regions and classes, as in dataset.json.
        label_values: From the organisers' value to ours.
    """

    labels: Mapping[str, int | tuple[int, ...]]
    label_values: Mapping[int, int]


@dataclass(frozen=True, kw_only=True)
class _Edition:
    """One year's task.

    Attributes:
        title: For people.
        name: What follows the data set's number.
        number: nnU-Net's own where it has a converter (42, 43, 82, 137, 226); ours else.
        naming: Of cases and files.
        tissues: Its labels.
        page: Of its data.
        submission: What its organisers take, but for names and values.
    """

    title: str
    name: str
    number: int
    naming: Naming
    tissues: _Tissues
    page: str
    submission: partial[Submission]


_WHOLE_CORE_ENHANCING: Mapping[str, int | tuple[int, ...]] = {
    "background": 0,
    "whole tumor": (1, 2, 3),
    "tumor core": (2, 3),
    "enhancing tumor": 3,
}
_ENHANCING_4 = _Tissues(labels=_WHOLE_CORE_ENHANCING, label_values={0: 0, 1: 2, 2: 1, 4: 3})
_ENHANCING_3 = _Tissues(labels=_WHOLE_CORE_ENHANCING, label_values={0: 0, 1: 2, 2: 1, 3: 3})
_POST_TREATMENT = _Tissues(
    labels={**_WHOLE_CORE_ENHANCING, "resection cavity": 4}, label_values={0: 0, 1: 2, 2: 1, 3: 3, 4: 4}
)
# the organisers' 1 to 4 are enhancing, non-enhancing, cystic and edema; what is left of the core is non-enhancing
_PAEDIATRIC = _Tissues(
    labels={
        "background": 0,
        "whole tumor": (1, 2, 3, 4),
        "tumor core": (2, 3, 4),
        "cystic component": 3,
        "enhancing tumor": 4,
    },
    label_values={0: 0, 1: 4, 2: 2, 3: 3, 4: 1},
)


def _underscored(pattern: str, example: str, **odd_labels: str) -> Naming:
    images = ("_t1", "_t1ce", "_t2", "_flair")
    return Naming(pattern=pattern, example=example, images=images, label="_seg", odd_labels=odd_labels)


def _hyphened(tumour: str) -> Naming:
    """Return the naming since 2023: patient, then time point."""
    return Naming(
        pattern=rf"(?P<patient>BraTS-{tumour}-\d{{5}})-\d{{3}}",
        example=f"BraTS-{tumour}-00001-000",
        images=("-t1n", "-t1c", "-t2w", "-t2f"),
        label="-seg",
    )


_NAMING_2018 = _underscored(r"(?P<patient>Brats18_\w+)_\d+", "Brats18_CBICA_AAB_1")
_NAMING_2019 = _underscored(r"(?P<patient>BraTS19_\w+)_\d+", "BraTS19_CBICA_AAB_1")
_NAMING_2020 = _underscored(
    r"BraTS20_(?P<part>Training|Validation|Testing)_\d{3}",
    "BraTS20_Training_001",
    BraTS20_Training_355="W39_1998.09.19_Segm",  # published so, in all copies
)
_NAMING_2021 = _underscored(r"BraTS2021_\d{5}", "BraTS2021_00000")

_PORTAL = partial(
    Submission,
    archive="folder",
    shape=_GRID,
    note="the portal takes the files as they are, and refuses headers that differ from the images'",
)
_SYNAPSE_2021 = partial(
    Submission,
    shape=_GRID,
    note="this is what the validation phase takes; the test phase took containers",
)
_SYNAPSE = partial(
    Submission,
    shape=_GRID,
    partial=True,
    container=True,
    container_channels=_SUFFIXES_2023,
    note="this is what the validation phase takes and scores, complete or not; the test phase takes containers",
)

_PAGE_2018 = "https://www.med.upenn.edu/sbia/brats2018/data.html"
_PAGE_2019 = "https://www.med.upenn.edu/cbica/brats2019/data.html"
_PAGE_2020 = "https://www.med.upenn.edu/cbica/brats2020/data.html"
_PAGE_2021 = "https://www.synapse.org/#!Synapse:syn25829067/wiki/610863"
_PAGE_2023 = "https://www.synapse.org/#!Synapse:syn51156910/wiki/622341"
_PAGE_2024 = "https://www.synapse.org/Synapse:syn53708249/wiki/627500"


def _early(year: int, number: int, naming: Naming, page: str, submission: partial[Submission]) -> _Edition:
    return _Edition(
        title=f"BraTS {year}, adult glioma",
        name=f"BraTS{year}",
        number=number,
        naming=naming,
        tissues=_ENHANCING_4,
        page=page,
        submission=submission,
    )


def _of_2023(tumour: str, title: str, number: int) -> _Edition:
    return _Edition(
        title=f"BraTS 2023, {title}",
        name=f"BraTS2023-{tumour}",
        number=number,
        naming=_hyphened(tumour),
        tissues=_ENHANCING_3,
        page=_PAGE_2023,
        submission=partial(_SYNAPSE, affine=_QFORM_2023),
    )


def _of_2024(
    tumour: str,
    title: str,
    number: int,
    tissues: _Tissues = _ENHANCING_3,
    shape: tuple[int, int, int] = _GRID,
) -> _Edition:
    return _Edition(
        title=f"BraTS 2024, {title}",
        name=f"BraTS2024-{tumour}",
        number=number,
        naming=_hyphened(tumour),
        tissues=tissues,
        page=_PAGE_2024,
        submission=partial(_SYNAPSE, shape=shape),
    )


_EDITIONS: dict[str, _Edition] = {
    "brats2018": _early(2018, 42, _NAMING_2018, _PAGE_2018, _PORTAL),
    "brats2019": _early(2019, 43, _NAMING_2019, _PAGE_2019, _PORTAL),
    "brats2020": _early(2020, 82, _NAMING_2020, _PAGE_2020, _PORTAL),
    "brats2021": _early(2021, 137, _NAMING_2021, _PAGE_2021, _SYNAPSE_2021),
    "brats2023": _of_2023("GLI", "adult glioma", 230),
    "brats2023-men": _of_2023("MEN", "meningioma", 231),
    "brats2023-met": _of_2023("MET", "metastases", 232),
    "brats2023-ped": _of_2023("PED", "children's glioma", 233),
    "brats2023-ssa": _of_2023("SSA", "glioma in Sub-Saharan Africa", 234),
    "brats2024": _of_2024("GLI", "adult glioma after treatment", 226, _POST_TREATMENT, _POST_TREATMENT_GRID),
    "brats2024-met": _of_2024("MET", "metastases", 236),
    "brats2024-ped": _of_2024("PED", "children's glioma", 237, _PAEDIATRIC),
    "brats2024-ssa": _of_2024("SSA", "glioma in Sub-Saharan Africa", 238),
}


def read_edition(name: str, source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read a download of one year's task: training folders, validation folders or both.

    Args:
        name: Of the challenge.
        source: The unpacked download.

    Raises:
        UsageError: If there is no case of this edition, or files end in ``.nii`` and ``.nii.gz``.
    """
    edition = _EDITIONS[name]
    folders = case_folders(source, [edition.naming])
    if not folders:
        raise _no_cases(source, [edition.naming])
    ending = common_ending(folders, source)
    description = DatasetDescription(
        dataset_id=edition.number,
        name=edition.name,
        channel_names=_CHANNELS,
        labels=edition.tissues.labels,
        regions_class_order=_painting_order(edition.tissues),
        label_values=edition.tissues.label_values,
        licence=f"see {edition.page}",
        reference=edition.page,
        release=edition.title,
        description=f"{edition.title}; labels are nnU-Net's, not the organisers'",
        file_ending=ending,
    )
    return description, labelled_cases(folders, ending)


def read_pool(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the cases of any editions as a pool; label maps, where there are any, are left behind.

    Args:
        source: One or several unpacked downloads.

    Raises:
        UsageError: If there is no case of BraTS, or files end in ``.nii`` and ``.nii.gz``.
    """
    folders = case_folders(source, _all_namings())
    if not folders:
        raise _no_cases(source, _all_namings())
    ending = common_ending(folders, source)
    description = DatasetDescription(
        dataset_id=_POOL_NUMBER,
        name="BraTSPool",
        channel_names=_CHANNELS,
        labels=_WHOLE_CORE_ENHANCING,
        regions_class_order=_painting_order(_ENHANCING_3),
        licence="see the pages of the editions",
        reference=_PAGE_2024,
        release="BraTS, cases without labels",
        file_ending=ending,
    )
    return description, unlabelled_cases(folders, ending)


def _painting_order(tissues: _Tissues) -> tuple[int, ...]:
    return tuple(sorted(set(tissues.label_values.values()) - {0}))


def _all_namings() -> list[Naming]:
    return list({edition.naming.pattern: edition.naming for edition in _EDITIONS.values()}.values())


def _no_cases(source: Path, namings: list[Naming]) -> UsageError:
    wanted = f"expected folders named like {namings[0].example} in {source}"
    others: list[CaseFolder] = case_folders(source, _all_namings())
    if not others:
        return UsageError(f"{wanted}, found none; give the folder that the download was unpacked to")
    fitting = [name for name, edition in _EDITIONS.items() if edition.naming.fits(others[0].path.name)]
    return UsageError(f"{wanted}, found {others[0].path.name}; type nnunet_kd convert {' or '.join(fitting)} {source}")


def _file_name(naming: Naming, case: str) -> str:
    if not naming.fits(case):
        raise UsageError(
            f"expected a case named like {naming.example}, got {case}; name predictions as the organisers' cases"
        )
    return f"{case}.nii.gz"


def _challenge(name: str, edition: _Edition) -> Challenge:
    submission = edition.submission(
        file_name=partial(_file_name, edition.naming),
        label_values={ours: theirs for theirs, ours in edition.tissues.label_values.items()},
    )
    return Challenge(
        summary=edition.title,
        source=f"a folder with training or validation cases or both, at any depth: {edition.naming.example} and so on",
        read_source=partial(read_edition, name),
        submission=submission,
    )


CHALLENGES: dict[str, Challenge] = {name: _challenge(name, edition) for name, edition in _EDITIONS.items()} | {
    _POOL: Challenge(
        summary="BraTS, any years, as a pool without labels",
        source="a folder with cases of any years, at any depth",
        read_source=read_pool,
    )
}
