"""Which files are a case and where its label map goes, by nnU-Net's conventions of names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_kd.deployment.inference.file_checks import check_file
from nnunet_kd.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """One case on disk.

    Attributes:
        name: Without channel and ending.
        files: One per channel, or one with all of them.
        output: Label map to write.
        previous: Label map of a cascade's previous stage.
        fault: Why it cannot be predicted, where its files' names already say so.
    """

    name: str
    files: tuple[Path, ...]
    output: Path
    previous: Path | None = None
    fault: str = ""

    def beside(self, suffix: str) -> Path:
        """Return a file of the case's name beside the label map, as ``--save_probabilities`` writes it."""
        return self.output.with_name(self.name + suffix)


def find_cases(
    sources: Sequence[Path], output: Path, *, ending: str, previous: Path | None = None
) -> tuple[CaseFiles, ...]:
    """Return the cases of a folder, or the one whose files are given.

    Args:
        sources: One folder of ``CASE_0000`` and so on, or the files of one case in the order of channels.
        output: A folder; for one case's files also the label map itself, known by its ending.
        ending: Of images and label maps, with its dot.
        previous: Folder with the label maps of a cascade's previous stage; for one case's files also its file.

    Returns:
        At least one case, by name.

    Raises:
        UsageError: If there is no case, the output is of the wrong kind, or it would replace an input.
    """
    if len(sources) == 1 and sources[0].is_dir():
        cases = _in_folder(sources[0], output, ending, previous)
    else:
        cases = (_from_files(sources, output, ending, previous),)
    inputs = {path.resolve() for case in cases for path in (*case.files, case.previous) if path is not None}
    if replaced := [case.output for case in cases if case.output.resolve() in inputs]:
        raise UsageError(f"-o would replace an input, {replaced[0]}; name another folder")
    return cases


def split_list(texts: Sequence[str]) -> tuple[Path, ...]:
    """Return the paths of a list separated by spaces or commas; a comma inside the name of a file stays there."""
    parts = [part for text in texts for part in ([text] if Path(text).exists() else text.split(","))]
    return tuple(Path(part).expanduser() for part in parts if part)


def part_of(cases: Sequence[CaseFiles], n_parts: int, part: int) -> tuple[CaseFiles, ...]:
    """Return every ``n_parts``-th case, from ``part`` on, as nnU-Net divides them.

    Raises:
        UsageError: If there is no such part.
    """
    if n_parts < 1 or not 0 <= part < n_parts:
        raise UsageError(
            f"expected -part_id from 0 to -num_parts less 1, got -num_parts {n_parts} -part_id {part}; count from 0"
        )
    return tuple(cases[part::n_parts])


def is_finished(case: CaseFiles, *, probabilities: bool) -> bool:
    """Return whether a case's results are there and whole; a crash of the machine may leave torn files."""
    wanted = [case.output, *([case.beside(".npz"), case.beside(".pkl")] if probabilities else [])]
    if any(not file.is_file() or file.stat().st_size == 0 for file in wanted):
        return False
    try:
        check_file(case.output)
    except UsageError:
        return False
    return True


def _in_folder(folder: Path, output: Path, ending: str, previous: Path | None) -> tuple[CaseFiles, ...]:
    if output.is_file() or output.name.endswith(ending):
        raise UsageError(f"expected a folder for -o, since -i is one, got {output}; name a folder")
    if previous is not None and not previous.is_dir():
        raise UsageError(f"expected a folder for -prev_stage_predictions, got {previous}; name the first stage's -o")
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    channels: dict[str, list[int]] = {}
    for match in filter(None, map(pattern.fullmatch, names)):
        channels.setdefault(match[1], []).append(int(match[2]))
    if not channels:
        found = f"{len(names)} others, such as {names[0]}" if names else "nothing"
        raise UsageError(
            f"expected images CASE_0000{ending} in {folder}, found {found}; check the folder and the names"
        )
    return tuple(
        CaseFiles(
            name=case,
            files=tuple(folder / f"{case}_{number:04d}{ending}" for number in numbers),
            output=output / f"{case}{ending}",
            previous=None if previous is None else previous / f"{case}{ending}",
            fault=_gap(numbers),
        )
        for case, numbers in sorted(channels.items())
    )


def _gap(numbers: Sequence[int]) -> str:
    if list(numbers) == list(range(len(numbers))):
        return ""
    found = ", ".join(f"{number:04d}" for number in numbers)
    return f"expected channels numbered from 0000 without a gap, found {found}; add or rename the files"


def _from_files(sources: Sequence[Path], output: Path, ending: str, previous: Path | None) -> CaseFiles:
    if wrong := [path for path in sources if not path.is_file()]:
        raise UsageError(f"expected a folder of images or the files of one case for -i, found no file {wrong[0]}")
    if not sources:
        raise UsageError("expected a folder of images or the files of one case for -i, got nothing")
    if other := [path for path in sources if not path.name.endswith(ending)]:
        raise UsageError(f"expected images ending in {ending}, as in training, got {other[0]}; convert them")
    is_file = output.name.endswith(ending) and not output.is_dir()
    if not is_file and output.suffix and not output.is_dir():
        raise UsageError(f"expected a label map ending in {ending} or a folder for -o, got {output}; name it so")
    name = output.name.removesuffix(ending) if is_file else _case_name(sources[0], ending)
    if not name:
        raise UsageError(f"expected a name before {ending} for -o, got {output}")
    before = previous
    if previous is not None and previous.is_dir():
        before = previous / f"{_case_name(sources[0], ending)}{ending}"
    target = output if is_file else output / f"{name}{ending}"
    return CaseFiles(name=name, files=tuple(sources), output=target, previous=before)


def _case_name(file: Path, ending: str) -> str:
    name = file.name.removesuffix(ending)
    return re.sub(r"(?<=.)_\d{4}$", "", name)
