"""A run over many cases: results appear whole or not at all, and what happened is written down."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Protocol

from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.prediction.overlap import Outcome, Seconds, Stages, run_overlapped
from nnunet_kd.deployment.prediction.records import case_entry, read_cases, write_record
from nnunet_kd.output import work_folder
from nnunet_kd.planning.model_folder import write_json_atomically


class Backend(Stages, Protocol):
    """A model that can be run over cases."""

    @property
    def file_ending(self) -> str:
        """Of images and label maps, with its dot."""

    @property
    def previous_stage(self) -> str | None:
        """Configuration whose label maps a cascade needs."""

    def load(self) -> None:
        """Load the network."""

    def identity(self) -> dict[str, Any]:
        """Return what decides about the label maps."""

    def documents(self) -> dict[str, Any]:
        """Return dataset.json and plans.json for beside the predictions."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    Attributes:
        cases: To predict.
        output: The folder of label maps, or the one label map.
        record: File name of the record; ``None`` writes none and nothing else beside the label map.
        threads: For the record: cores for the network; ``None`` where its library decides.
        n_workers: Threads that read, and as many that write.
        start: When the run began, as ``time.perf_counter`` counts.
    """

    cases: Sequence[CaseFiles]
    output: Path
    record: str | None
    threads: int | None = None
    n_workers: int = 1
    start: float = 0.0


def predict_cases(job: Job, backend: Backend) -> Iterator[Outcome]:
    """Predict all cases and yield what became of each; nothing is written before the network is loaded.

    Raises:
        UsageError: If the network cannot be loaded.
        OSError: If the output's folder cannot be written.
    """
    identity = backend.identity()
    # inside the folder of predictions, so that it is on the same disk; beside a single label map
    target = job.output / "predictions" if job.record else job.output
    with ExitStack() as stack:
        stages = _Placed(backend)
        entries: dict[str, Any] = {}

        def started() -> None:
            backend.load()
            if job.record:
                job.output.mkdir(parents=True, exist_ok=True)
                entries.update(read_cases(job.output / job.record, identity))
                for name, content in backend.documents().items():
                    write_json_atomically(content, job.output / name)
                _note(job, identity, entries, finished=False)
            stages.work = stack.enter_context(work_folder(target))

        outcomes = run_overlapped(job.cases, stages, started=started, n_workers=job.n_workers)
        try:
            for outcome in outcomes:
                entries[outcome.case.name] = case_entry(outcome)
                yield outcome
        except (KeyboardInterrupt, GeneratorExit):
            outcomes.close()
            _note(job, identity, entries, finished=False)
            raise
        _note(job, identity, entries, finished=True)


def _note(job: Job, identity: Mapping[str, Any], entries: Mapping[str, Any], *, finished: bool) -> None:
    if job.record:
        seconds = perf_counter() - job.start
        write_record(
            job.output / job.record, identity, entries, threads=job.threads, seconds=seconds, finished=finished
        )


class _Placed:
    """The stages of a backend, with results written in the work folder first and then renamed, label map last."""

    def __init__(self, backend: Backend) -> None:
        self.prepare = backend.prepare
        self.compute = backend.compute
        self.backend = backend
        self.work = Path()

    def finish(self, case: CaseFiles, computed: Any, seconds: Seconds) -> None:  # noqa: ANN401
        with TemporaryDirectory(dir=self.work) as folder:
            elsewhere = replace(case, output=Path(folder) / case.output.name)
            self.backend.finish(elsewhere, computed, seconds)
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == case.output.name):
                file.replace(case.output.with_name(file.name))
