"""The cases of a BraTS download: one folder per case, named by a pattern, with one file per image."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from nnunet_kd.dataset_conversion.challenge import Case, Volume
from nnunet_kd.dataset_conversion.incoming.look_alikes import refuse_look_alikes
from nnunet_kd.errors import UsageError

ENDINGS = (".nii.gz", ".nii")

_ARCHIVER = "__MACOSX"  # what macOS puts beside the real folders


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How one edition names its cases.

    Attributes:
        pattern: Of a case's folder. Its group ``patient`` is what all time points of a patient share; its group
            ``part``, where there is one, says whether the case is to train or to test.
        example: A name that fits.
        images: What follows the case's name in its images' names: T1, T1 with contrast, T2, FLAIR.
        label: What follows it in its label map's name.
        odd_labels: Names of label maps, without ending, of cases that do not keep to that.
    """

    pattern: str
    example: str
    images: tuple[str, str, str, str]
    label: str
    odd_labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, name: str) -> bool:
        """Say whether a name is that of a case."""
        return re.fullmatch(self.pattern, name) is not None


@dataclass(frozen=True)
class CaseFolder:
    """A folder that is named like a case.

    Attributes:
        path: The folder.
        naming: Whose pattern its name fits.
        files: Names of what lies in it.
    """

    path: Path
    naming: Naming
    files: frozenset[str]

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images, without ending."""
        return tuple(f"{self.path.name}{image}" for image in self.naming.images)

    @property
    def patient(self) -> str:
        """What all time points of the patient share."""
        return self._group("patient")

    @property
    def batch(self) -> tuple[Path, str]:
        """What was released together, all with label maps or all without."""
        return self.path.parent, self._group("part")

    def label(self, ending: str) -> str:
        """Return the name of the label map, also of one that is not there."""
        odd = self.naming.odd_labels.get(self.path.name, "") + ending
        return odd if odd in self.files else f"{self.path.name}{self.naming.label}{ending}"

    def _group(self, name: str) -> str:
        match = re.fullmatch(self.naming.pattern, self.path.name)
        return (match.groupdict().get(name) or "") if match else ""


def case_folders(source: Path, namings: Sequence[Naming]) -> list[CaseFolder]:
    """Find the folders named like cases, at any depth, in the order of their paths.

    Links to folders are followed; hidden folders are passed over, and so is what lies inside of a case.

    Args:
        source: The download.
        namings: Whose cases are looked for.

    Raises:
        UsageError: If a folder cannot be read or is named almost like a case.
    """
    try:
        return sorted(_walk(source, namings), key=lambda folder: folder.path)
    except OSError as error:
        raise UsageError(
            f"expected a folder that can be read, got {error.filename} ({error.strerror}); check the path"
        ) from error


def _walk(source: Path, namings: Sequence[Naming]) -> Iterator[CaseFolder]:
    waiting, seen = [source], set()
    while waiting:
        folder = waiting.pop()
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        inside = [path for path in folder.iterdir() if path.is_dir()]
        for path in inside:
            naming = next((naming for naming in namings if naming.fits(path.name)), None)
            if naming is not None:
                yield CaseFolder(path, naming, frozenset(file.name for file in path.iterdir()))
            elif not path.name.startswith(".") and path.name != _ARCHIVER:
                _refuse_look_alike(path, namings)
                waiting.append(path)


def _refuse_look_alike(path: Path, namings: Sequence[Naming]) -> None:
    """Refuse a folder of images that is named almost like a case; one that only holds cases may be called anything."""
    if not any(file.name.endswith(ENDINGS) for file in path.iterdir()):
        return
    for naming in namings:
        nearly = re.sub(r"\\d\{\d\}", r"\\d+", naming.pattern)  # whatever the number of digits
        refuse_look_alikes([path], nearly=nearly, exactly=naming.pattern, example=naming.example)


def common_ending(folders: Sequence[CaseFolder], source: Path) -> str:
    """Return the ending of all files of a download: ``.nii.gz`` or ``.nii``.

    Where a file is there with both, one ending that all of them have is enough.

    Args:
        folders: Its cases.
        source: The download, for messages.

    Raises:
        UsageError: If some files have one ending and some the other.
    """
    present: dict[str, set[Path]] = {ending: set() for ending in ENDINGS}
    for folder, ending in product(folders, ENDINGS):
        names = (*(image + ending for image in folder.images), folder.label(ending))
        present[ending] |= {folder.path / name.removesuffix(ending) for name in names if name in folder.files}
    everything = set().union(*present.values())
    for ending in ENDINGS:
        if present[ending] == everything:
            return ending
    unpacked = present[".nii"] - present[".nii.gz"]
    raise UsageError(
        f"expected one ending for all files in {source}, but {len(unpacked)} are .nii only ({min(unpacked)}.nii) and "
        f"{len(everything - present['.nii'])} .nii.gz only; type find {source} -name '*.nii' -exec gzip {{}} +"
    )


def labelled_cases(folders: Sequence[CaseFolder], ending: str) -> list[Case]:
    """Return cases to train with and cases to test with.

    Where one case of a folder has a label map, all others in it must have one: its missing file is
    named, so that it is found faulty. Where none has one, all are cases to test with.

    Args:
        folders: The cases.
        ending: Of all files.
    """
    annotated = {folder.batch for folder in folders if folder.label(ending) in folder.files}
    return [_case(folder, ending, labelled=folder.batch in annotated) for folder in folders]


def unlabelled_cases(folders: Sequence[CaseFolder], ending: str) -> list[Case]:
    """Return all cases as cases without a label map.

    Args:
        folders: The cases.
        ending: Of all files.
    """
    return [_case(folder, ending, labelled=False) for folder in folders]


def _case(folder: CaseFolder, ending: str, *, labelled: bool) -> Case:
    return Case(
        name=folder.path.name,
        images=tuple(Volume(path=folder.path / f"{image}{ending}") for image in folder.images),
        label=folder.path / folder.label(ending) if labelled else None,
        patient=folder.patient,
    )
