"""A case's files where nnU-Net looks for them: linked, copied, or written anew where they must change."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription
from nnunet_kd.dataset_conversion.incoming.checking import CheckedCase, volumes_of
from nnunet_kd.dataset_conversion.incoming.label_layers import painted
from nnunet_kd.dataset_conversion.incoming.volumes import (
    WRITABLE,
    Image,
    as_labels,
    channel,
    ending_of,
    read_image,
    reoriented,
    sha256,
    write_image,
)
from nnunet_kd.errors import UsageError

Transfer = Literal["copy", "link", "recompress"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How files are written.

    Attributes:
        transfer: ``copy``, symbolic ``link``, or read and write again. A file that must change is written anew in
            any case.
        ending: Of every file; ``None`` keeps the source's.
        orientation: Where each axis points, as ``RAS``; ``None`` leaves the axes as they are.
    """

    transfer: Transfer = "copy"
    ending: str | None = None
    orientation: str | None = None

    def __post_init__(self) -> None:
        if self.ending is not None and self.ending not in WRITABLE:
            raise UsageError(f"expected --ending to be one of {', '.join(WRITABLE)}, got {self.ending}")
        axes = ("RL", "AP", "SI")
        letters = [
            next((n for n, pair in enumerate(axes) if letter in pair), None) for letter in self.orientation or ""
        ]
        if self.orientation is not None and sorted(letters, key=str) != [0, 1, 2]:
            raise UsageError(
                f"expected --orient to name three directions, one of R L, A P and S I each, such as RAS; "
                f"got {self.orientation}"
            )

    def ending_for(self, description: DatasetDescription) -> str:
        """Return the ending of the data set's files; a ``.mhd`` becomes a ``.mha``, which is one file."""
        return self.ending or (".mha" if description.file_ending == ".mhd" else description.file_ending)


@dataclass(frozen=True)
class PlacedCase:
    """What was written of a case.

    Attributes:
        files: Path in the data set to SHA-256; a link's is its source's.
        changes: What was changed, one line per kind.
        n_rewritten: How many files were written anew.
        taken_over: Whether an interrupted run had written them.
    """

    files: Mapping[str, str]
    changes: tuple[str, ...] = ()
    n_rewritten: int = 0
    taken_over: bool = False


@dataclass(frozen=True)
class _Part:
    """One file to be written.

    Attributes:
        target: Its path in the data set.
        source: The file it comes from.
        index: Which volume of that along the fourth axis.
        reasons: Why it cannot be the source's file.
        change: Does what the reasons say, after the channel is taken.
    """

    target: str
    source: Path
    index: int | None
    reasons: tuple[str, ...]
    change: Callable[[Image], Image]


def place_case(
    case: Case, checked: CheckedCase, *, source: Path, folder: Path, description: DatasetDescription, form: Form
) -> PlacedCase:
    """Write a case's files.

    A source that holds several channels is read once.

    Args:
        case: A case without faults.
        checked: What :func:`~nnunet_kd.dataset_conversion.incoming.checking.check_case` said of it.
        source: Folder the paths of ``checked`` are relative to.
        folder: The data set's.
        description: Says which value of a label map becomes which.
        form: How.

    Raises:
        UsageError: If the place takes no file.
    """
    parts = _parts(case, checked, description, form)
    files: dict[str, str] = {}
    hashes = dict(checked.hashes)
    by_source: dict[Path, list[_Part]] = {}
    for part in parts:
        by_source.setdefault(part.source, []).append(part)
    for origin, of_source in by_source.items():
        image = None
        if any(part.reasons for part in of_source):
            layered = case.label_layers and origin == case.label
            image = painted(case.label_layers) if layered else read_image(origin)
        for part in of_source:
            destination = folder / part.target
            try:
                destination.parent.mkdir(parents=True, exist_ok=True)
                destination.unlink(missing_ok=True)  # a case may be tried twice
                if image is not None:
                    taken = image if part.index is None else channel(image, part.index)
                    write_image(part.change(taken), destination)
                    files[part.target] = sha256(destination)
                else:
                    _transfer(origin, destination, form.transfer)
                    files[part.target] = hashes[os.path.relpath(origin, source)]
            except OSError as error:  # no bug of ours, so without its traceback
                raise UsageError(f"{part.target}: {error.strerror or error}") from error
    changes = tuple(dict.fromkeys(reason for part in parts for reason in part.reasons))
    return PlacedCase(files, changes, sum(bool(part.reasons) for part in parts))


def linked(case: Case, checked: CheckedCase, description: DatasetDescription, form: Form) -> bool:
    """Tell whether all of a case's files will be links."""
    return form.transfer == "link" and not any(part.reasons for part in _parts(case, checked, description, form))


def is_placed(placed: PlacedCase, folder: Path, case: Case) -> bool:
    """Tell whether files that an earlier run wrote are still what it wrote.

    Args:
        placed: What it noted.
        folder: The data set's.
        case: Its files, for links.
    """
    sources = {path.resolve() for path, _ in volumes_of(case)}
    for path, digest in placed.files.items():
        file = folder / path
        if file.is_symlink():
            if file.resolve() not in sources:
                return False
        elif not file.is_file() or sha256(file) != digest:
            return False
    return True


def _transfer(source: Path, destination: Path, transfer: Transfer) -> None:
    if transfer == "link":
        destination.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, destination)


def _parts(case: Case, checked: CheckedCase, description: DatasetDescription, form: Form) -> list[_Part]:
    ending = form.ending_for(description)
    role = "Ts" if case.label is None else "Tr"

    def turned(image: Image) -> Image:
        return image if form.orientation is None else reoriented(image, form.orientation)

    def mapped(image: Image) -> Image:
        return turned(as_labels(image, description.source_values))

    parts = []
    for number, volume in enumerate(case.images):
        reasons = _reasons(volume.path, ending, form)
        if volume.index is not None:
            reasons = ("channels along the fourth axis became files", *reasons)
        target = f"images{role}/{case.name}_{number:04d}{ending}"
        parts.append(_Part(target, volume.path, volume.index, reasons, turned))
    if case.label is not None:
        reasons = (*_label_reasons(case, checked, description), *_reasons(case.label, ending, form))
        parts.append(_Part(f"labelsTr/{case.name}{ending}", case.label, None, reasons, mapped))
    return parts


def _reasons(path: Path, ending: str, form: Form) -> tuple[str, ...]:
    reasons = []
    if ending_of(path) != ending or not path.name.endswith(ending):
        reasons.append(f"{ending_of(path)} became {ending}")
    if form.orientation is not None:
        reasons.append(f"turned to {form.orientation}")
    if form.transfer == "recompress":
        reasons.append("read and written again")
    return tuple(reasons)


def _label_reasons(case: Case, checked: CheckedCase, description: DatasetDescription) -> tuple[str, ...]:
    reasons = []
    if case.label_layers:
        reasons.append("label map painted from masks")
    if any(theirs != ours for theirs, ours in description.source_values.items()):
        reasons.append("label values mapped")
    if checked.label_type:
        reasons.append(f"{checked.label_type} labels became uint8")
    return tuple(reasons)
