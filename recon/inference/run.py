"""Many cases: found, reconstructed one after the other, written whole; faults do not stop the others."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from nnunet_kd.cases import Fault
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.data.cases import ENDING, read_header
from nnunet_kd.recon.inference.outputs import output_file, output_format, write_reconstruction
from nnunet_kd.recon.inference.predictor import Predictor, reconstruct, used_mask

RECORD = "recon_prediction.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to be reconstructed.

    Attributes:
        source: Case file.
        target: What is written.
        n_slices: For the progress bar; 0 where the file cannot be read.
    """

    source: Path
    target: Path
    n_slices: int = 0


def find_jobs(sources: Sequence[Path], output: Path) -> list[Job]:
    """Return the cases of a folder or of files, by name; unreadable ones are kept, to be reported with the others.

    Raises:
        UsageError: If there is no case, two have one name, or one would be written onto itself.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(file for file in source.iterdir() if file.name.endswith(ENDING) and file.is_file())
        else:
            files.append(source)
    if not files:
        raise UsageError(f"expected case files (*{ENDING}) in '{sources[0]}', found none; give kspaceTs, for example")
    jobs = [_job(file, output) for file in files]
    targets = Counter(job.target for job in jobs)
    twice = next((target for target, count in targets.items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"-i has more than one case for {twice}; give one of them, or predict into two folders")
    clash = [job for job in jobs if job.target.resolve() == job.source.resolve()]
    if clash:
        raise UsageError(f"-o would replace an input, {clash[0].source}; name another folder")
    return jobs


def _job(file: Path, output: Path) -> Job:
    name = file.name.removesuffix(ENDING)
    try:
        header = read_header(file)
    except UsageError:
        return Job(source=file, target=output_file(output, name, "hdf5"))
    return Job(source=file, target=output_file(output, name, output_format(header)), n_slices=header.n_slices)


def run_jobs(
    predictor: Predictor,
    jobs: Sequence[Job],
    progress: Callable[[int], object] = int,
    *,
    write: Callable[[Predictor, Job, Callable[[int], object]], None] | None = None,
) -> tuple[dict[str, Any], list[Fault]]:
    """Reconstruct and write every case.

    Args:
        predictor: What reconstructs.
        jobs: The cases.
        progress: Called with the number of slices that were finished.
        write: What reconstructs a case and writes its files; ``None``: :func:`write_case`.

    Returns:
        What is known of each finished case (true acceleration, seconds), and the faults of the others.
    """
    entries: dict[str, Any] = {}
    faults: list[Fault] = []
    for job in jobs:
        start = perf_counter()
        try:
            (write or write_case)(predictor, job, progress)
            entries[job.target.name] = {
                "true_acceleration": _acceleration(predictor, job.source),
                "seconds": perf_counter() - start,
            }
        except UsageError as error:
            faults.append(Fault(case=job.source.name, message=" ".join(str(error).split())))
    return entries, faults


def write_case(predictor: Predictor, job: Job, progress: Callable[[int], object] = int) -> None:
    """Reconstruct a case and write it.

    Raises:
        UsageError: As :func:`nnunet_kd.recon.inference.predictor.reconstruct`.
    """
    volume = reconstruct(predictor, job.source, progress)
    write_reconstruction(job.target, volume, read_header(job.source))


def _acceleration(predictor: Predictor, source: Path) -> float:
    import torch

    from nnunet_kd.recon.physics.sampling import true_acceleration

    header = read_header(source)
    mask = torch.from_numpy(used_mask(predictor, source))
    full = mask.expand(*header.matrix)
    return float(true_acceleration(full, padding=header.padding))


def write_record(folder: Path, facts: dict[str, Any], entries: dict[str, Any]) -> None:
    """Write what the reconstructions were made with, beside them; what other runs wrote there is kept."""
    write_json_atomically({**facts, "cases": {**recorded_cases(folder), **entries}}, folder / RECORD)


def recorded_cases(folder: Path) -> dict[str, Any]:
    """Return what other runs wrote of their cases, none where there is no record.

    Raises:
        UsageError: If the record is damaged.
    """
    from nnunet_kd.planning.model_folder import read_json_object

    file = folder / RECORD
    cases = read_json_object(file).get("cases", {}) if file.is_file() else {}
    if not isinstance(cases, dict):
        raise UsageError(f"expected a JSON object under 'cases' in {file}, got {cases!r:.80}; remove the file")
    return cases
