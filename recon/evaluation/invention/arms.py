"""The arms of the report: name, acceleration, and one folder of reconstructions for each sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.evaluation.volumes import check_same_cases, volume_files


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method at one acceleration.

    Attributes:
        name: Without the acceleration.
        acceleration: As given by ``NAME@R``; ``None`` where it was not.
        folders: One per sample.
    """

    name: str
    acceleration: float | None
    folders: tuple[Path, ...]

    @property
    def label(self) -> str:
        """Name with the acceleration, as typed."""
        return self.name if self.acceleration is None else f"{self.name}@{self.acceleration:g}"


@dataclass(frozen=True, kw_only=True)
class ArmFiles:
    """An arm with its files.

    Attributes:
        arm: The arm.
        samples: For each sample the file of each case.
    """

    arm: Arm
    samples: tuple[Mapping[str, Path], ...]


def parse_arm(text: str) -> Arm:
    """Read ``NAME[@R]=FOLDER[,FOLDER]``.

    Raises:
        UsageError: If it is anything else.

    Example:
        >>> parse_arm("texture@8=a,b").label
        'texture@8'
    """
    label, equals, value = text.partition("=")
    name, at, rate = label.partition("@")
    folders = tuple(Path(folder) for folder in value.split(",") if folder)
    if not (name.strip() and equals and folders) or "|" in name or not name.isprintable():
        raise UsageError(f"expected --arm NAME=FOLDER[,FOLDER] or NAME@R=FOLDER[,FOLDER], got '{text}'")
    return Arm(name=name.strip(), acceleration=_rate(rate, text) if at else None, folders=folders)


def _rate(text: str, whole: str) -> float:
    try:
        rate = float(text.removeprefix("x"))
    except ValueError:
        rate = 0.0
    if not 1 <= rate < float("inf"):
        raise UsageError(f"expected an acceleration from 1 after the @ of --arm NAME@R=FOLDER, got '{whole}'")
    return rate


def check_arms(arms: Sequence[Arm], baseline: str | None) -> None:
    """Refuse arms that cannot stand beside each other.

    Raises:
        UsageError: If a name or a folder comes twice, or the baseline is none of the arms at some acceleration.
    """
    labels = [arm.label for arm in arms]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UsageError(f"--arm names '{twice}' twice; several samples go into one: {twice}=FOLDER,FOLDER")
    folders = [folder for arm in arms for folder in arm.folders]
    resolved = [folder.resolve() for folder in folders]
    again = next((folder for folder in folders if resolved.count(folder.resolve()) > 1), None)
    if again is not None:
        raise UsageError(f"expected other reconstructions for every sample, got '{again}' twice; leave one out")
    if baseline is None:
        return
    for rate, group in by_acceleration(arms).items():
        if baseline not in [arm.name for arm in group]:
            where = "" if rate is None else f" at acceleration {rate:g}"
            names = ", ".join(arm.label for arm in group)
            raise UsageError(f"--baseline names '{baseline}'; the arms{where} are {names}")


def by_acceleration(arms: Iterable[Arm]) -> dict[float | None, list[Arm]]:
    """Return the arms of each acceleration, the lowest first, those without one before all."""
    groups: dict[float | None, list[Arm]] = {}
    for arm in sorted(arms, key=lambda arm: arm.acceleration or 0):
        groups.setdefault(arm.acceleration, []).append(arm)
    return groups


def find_files(arms: Sequence[Arm], reference: Mapping[str, Path]) -> list[ArmFiles]:
    """Find the files of every sample.

    Raises:
        UsageError: If a folder is missing or lacks a case of the reference.
    """
    found = []
    for arm in arms:
        samples = []
        for folder in arm.folders:
            files = volume_files(folder)
            check_same_cases(reference, files, f"arm '{arm.label}' ({folder})")
            samples.append({case: files[case] for case in reference})
        found.append(ArmFiles(arm=arm, samples=tuple(samples)))
    return found
