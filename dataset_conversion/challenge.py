"""What a challenge is to this program: how its data comes in, and how its submission goes out."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One channel of a case, as a file that exists already.

    Attributes:
        path: The file.
        index: Which volume along its fourth axis; ``None`` for a file of three axes.
    """

    path: Path
    index: int | None = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case of a challenge.

    Attributes:
        name: What nnU-Net will call it.
        images: One per channel, in the order of the description's ``channel_names``.
        label: The label map, ``None`` for a test case.
        patient: Cases of one patient never stand in two folds; the case's own name where it is empty.
        label_layers: Masks, and the organisers' value that each stands for, painted one over the other to make up the
            label map: where a mask is not 0, its value replaces what lies below. ``label`` is then the first of these
            files. Empty where ``label`` is the whole map.
    """

    name: str
    images: tuple[Volume, ...]
    label: Path | None
    patient: str = ""
    label_layers: tuple[tuple[Path, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """What dataset.json says about all cases together.

    Attributes:
        dataset_id: Number of the data set, ``None`` where the source does not suggest one.
        name: What follows the number in the folder's name.
        channel_names: One per image; ``CT`` selects nnU-Net's CT normalisation, others the z-score.
        labels: Value of each class, or the values that make up a region.
        regions_class_order: Order in which regions are painted, for labels that overlap.
        label_values: From the organisers' value of a label to ours. Empty: both are the same.
        licence: Licence of the data.
        reference: Where the data comes from.
        release: Which edition.
        description: One line.
        file_ending: Ending of every image and label file as they come.
    """

    dataset_id: int | None
    name: str
    channel_names: tuple[str, ...]
    labels: Mapping[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None
    label_values: Mapping[int, int] = field(default_factory=dict)
    licence: str
    reference: str
    release: str
    description: str = ""
    file_ending: str = ".nii.gz"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", self.name):
            raise ValueError(f"name must be letters and digits with single '_' or '-' between, got {self.name!r}")
        if self.labels.get("background") != 0:
            raise ValueError(f"label 'background' must be 0, got {dict(self.labels)}")
        if self.values != frozenset(range(len(self.values))):
            raise ValueError(f"label values must be consecutive from 0, got {sorted(self.values)}")
        if self.label_values and (set(self.label_values.values()) != self.values or self.label_values.get(0) != 0):
            raise ValueError(f"label_values must reach {sorted(self.values)} and keep 0, got {dict(self.label_values)}")

    @property
    def values(self) -> frozenset[int]:
        """Values a label map of ours may hold."""
        values: set[int] = set()
        for value in self.labels.values():
            values.update((value,) if isinstance(value, int) else value)
        return frozenset(values)

    @property
    def source_values(self) -> Mapping[int, int]:
        """From every value that the organisers' label maps may hold to ours."""
        return self.label_values or {value: value for value in self.values}

    def to_json(self, n_training: int) -> dict[str, Any]:
        """Return the content of nnU-Net's dataset.json."""
        content: dict[str, Any] = {
            "channel_names": {str(number): name for number, name in enumerate(self.channel_names)},
            "labels": {name: list(v) if isinstance(v, tuple) else v for name, v in self.labels.items()},
        }
        if self.regions_class_order is not None:
            content["regions_class_order"] = list(self.regions_class_order)
        return content | {
            "numTraining": n_training,
            "file_ending": self.file_ending,
            "name": self.name,
            "description": self.description,
            "licence": self.licence,
            "reference": self.reference,
            "release": self.release,
        }


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What the organisers take.

    Attributes:
        file_name: From the case's name, ours, to its path in the archive, with ``/`` between folders.
        label_values: From our value of a label to theirs; also refuses what is not in it.
        archive: Kind of the one file that is uploaded; ``folder`` where files are uploaded by themselves.
        cases: Names of all cases that must be there; ``None`` where those of the test images are.
        partial: Whether organisers score a part of the cases.
        shape: Voxels per axis as stored in the file, for challenges of one fixed grid.
        affine: Voxel to world, for challenges of one fixed grid.
        affine_tolerance: Largest difference between the entries of a prediction's affine and its image's [mm].
        container: Whether the test phase takes a container in place of predictions.
        container_channels: Endings of the files in a case's folder, ``t1n`` of ``CASE/CASE-t1n.nii.gz``, in the order
            of the channels, as a container gets them; empty where it gets one file per case.
        tasks: Folders in the archive and the values of each, where one archive holds several tasks; ``file_name`` is
            then the path inside such a folder.
        image_size: Rows and columns of every slice, where reconstructions are sent, HDF5 files of intensities, in place
            of label maps: unless the test files name another; ``None`` for label maps.
        note: What users must know beside that, one line; empty for most.
    """

    file_name: Callable[[str], str]
    label_values: Mapping[int, int]
    archive: Literal["zip", "tar.gz", "folder"] = "zip"
    cases: Sequence[str] | None = None
    partial: bool = False
    shape: tuple[int, int, int] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    affine_tolerance: float = 1e-3
    container: bool = False
    container_channels: tuple[str, ...] = ()
    tasks: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One challenge, one year.

    Attributes:
        summary: One line for ``--help``.
        source: What its download looks like, for messages: "a folder with ...".
        read_source: From the unpacked download to its description and cases. Reads names and listings only; what is
            in the images is checked for all challenges alike. Raises ``UsageError`` where this is no such download.
        submission: What its organisers take; ``None`` where predictions are not sent in.
    """

    summary: str
    source: str
    read_source: Callable[[Path], tuple[DatasetDescription, list[Case]]]
    submission: Submission | None = None
