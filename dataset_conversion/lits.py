"""LiTS, the liver tumour challenge of 2017: numbered volumes, in whatever folders its archives unpack to."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission, Volume
from nnunet_kd.dataset_conversion.incoming.look_alikes import refuse_look_alikes
from nnunet_kd.errors import UsageError

_SOURCE = "a folder with volume-0.nii and segmentation-0.nii, or test-volume-0.nii, at any depth"
_FILE = re.compile(r"(volume|segmentation|test-volume)-(\d+)\.nii")

_DESCRIPTION = DatasetDescription(
    dataset_id=29,
    name="LiTS2017",
    channel_names=("CT",),
    labels={"background": 0, "liver": (1, 2), "lesion": 2},  # what is scored as liver has the lesions in it
    regions_class_order=(1, 2),
    licence="terms of the challenge, https://competitions.codalab.org/competitions/17094",
    reference="https://competitions.codalab.org/competitions/17094",
    release="2017",
    description="Livers and their lesions in CT",
    file_ending=".nii",
)


def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the volumes below a folder: the two training batches, the test volumes, or all of them.

    Args:
        source: Any folder above the volumes.

    Raises:
        UsageError: If there are none.
    """
    files: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(source.rglob("*.nii")):
        if (match := _FILE.fullmatch(path.name)) and path.is_file():
            files[match[1]][int(match[2])].append(path)
    if not files:
        raise UsageError(f"expected {_SOURCE}; there is none in {source}; unpack the archives")
    refuse_look_alikes(
        (path for path in source.rglob("*.*") if path.name.lower().endswith((".nii", ".nii.gz"))),
        nearly=r"(volume|segmentation|test\W?volume)[\W_]*\d",
        exactly=_FILE.pattern,
        example="volume-0.nii",
    )
    volumes, segmentations = files["volume"], files["segmentation"]
    training = [
        _training_case(number, image, segmentations)
        for number in sorted({*volumes, *segmentations})
        for image in volumes.get(number) or [segmentations[number][0].with_name(f"volume-{number}.nii")]
    ]
    test = [
        Case(name=f"test-volume-{number}", images=(Volume(path=image),), label=None)
        for number, images in sorted(files["test-volume"].items())
        for image in images
    ]
    return _DESCRIPTION, [*training, *test]


def _training_case(number: int, image: Path, segmentations: Mapping[int, list[Path]]) -> Case:
    """Pair a volume with the segmentation beside it, or else with the one of its number."""
    beside = image.with_name(f"segmentation-{number}.nii")
    known = segmentations.get(number) or [beside]
    label = beside if beside in known else known[0]
    return Case(name=f"volume-{number}", images=(Volume(path=image),), label=label)


def _file_name(case: str) -> str:
    return f"{case.replace('volume', 'segmentation')}.nii"


CHALLENGES = {
    "lits17": Challenge(
        summary="livers and lesions in CT, LiTS 2017",
        source=_SOURCE,
        read_source=read_source,
        submission=Submission(
            file_name=_file_name,
            label_values={0: 0, 1: 1, 2: 2},
            cases=tuple(f"test-volume-{number}" for number in range(70)),
            note="one missing file ends the organisers' scoring",
        ),
    )
}
