"""A benchmark as files: every measurement as JSON, a page with tables, a picture."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunet_kd import __version__
from nnunet_kd.deployment.benchmark import BenchmarkSettings, measure
from nnunet_kd.deployment.benchmark_models import Contender
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.stage_times import STAGES, START_UP, ModelTimes, Round, Spread, summarise
from nnunet_kd.hardware import describe, n_cores
from nnunet_kd.output import check_replaceable, move_into_place, work_folder

FILES = {"json": "benchmark.json", "markdown": "benchmark.md", "plot": "benchmark.png"}
NONE = "-"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What was measured, and how.

    Attributes:
        contenders: The models by name; the first is what the others are compared with.
        cases: Names of the cases.
        settings: How models were run.
        rounds: Every measurement, by model.
        hardware: One line on the machine.
        load: Processes that wanted to run in the minute before, ``nan`` where the system does not say.
        created: Date and time, UTC.
    """

    contenders: Mapping[str, Contender]
    cases: tuple[str, ...]
    settings: BenchmarkSettings
    rounds: Mapping[str, Sequence[Round]]
    hardware: str
    load: float
    created: str

    @property
    def times(self) -> dict[str, ModelTimes]:
        """Summary by model."""
        return summarise(self.rounds)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything that is not an earlier benchmark.

    Raises:
        UsageError: If the folder exists and is none, or may not be replaced.
    """

    def is_ours(folder: Path) -> bool:
        return {entry.name for entry in folder.iterdir()} <= set(FILES.values())

    check_replaceable(output, is_ours=is_ours, what="a benchmark", overwrite=overwrite)


def run_benchmark(
    contenders: Mapping[str, Contender], cases: Sequence[CaseFiles], settings: BenchmarkSettings, output: Path
) -> Benchmark:
    """Measure, and write all files once everything is measured; label maps are written on the same disk and removed.

    Args:
        contenders: By name.
        cases: That each model segments.
        settings: How models are run.
        output: Folder to write; see :func:`check_output`.

    Raises:
        UsageError: If a model cannot be opened or a case not segmented.
        OSError: If the place may not be written.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with work_folder(output) as work:
        predictions, new = work / "predictions", work / "new"
        predictions.mkdir()
        new.mkdir()
        found = Benchmark(
            contenders=contenders,
            cases=tuple(case.name for case in cases),
            settings=settings,
            rounds=measure(contenders, cases, settings, predictions),
            hardware=describe(),
            load=load,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        write_files(found, new)
        move_into_place(new, output)
    return found


def write_files(found: Benchmark, folder: Path) -> None:
    """Write the report into an empty folder."""
    from nnunet_kd.deployment.benchmark_plot import plot_benchmark

    writers: dict[str, Callable[[Path], object]] = {
        "json": lambda file: file.write_text(json.dumps(to_json(found), indent=1, allow_nan=False) + "\n", "utf-8"),
        "markdown": lambda file: file.write_text(to_markdown(found), encoding="utf-8"),
        "plot": lambda file: plot_benchmark(found, file),
    }
    for kind, write in writers.items():
        write(folder / FILES[kind])


def to_json(found: Benchmark) -> dict[str, Any]:
    """Return everything as plain JSON values; ``None`` stands for a missing number."""
    content = {
        "format": 1,
        "nnunet_kd": __version__,
        "created": found.created,
        "hardware": found.hardware,
        "cores": n_cores(),
        "load": found.load,
        "settings": asdict(found.settings),
        "cases": found.cases,
        "stages": STAGES,
        "models": {
            name: {**asdict(contender), "path": contender.path.name} for name, contender in found.contenders.items()
        },
        "summary": {name: asdict(times) for name, times in found.times.items()},
        "rounds": {name: [asdict(taken) for taken in rounds] for name, rounds in found.rounds.items()},
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def to_markdown(found: Benchmark) -> str:
    """Return a page with the tables and what their numbers mean."""
    lines = ["# Benchmark", "", *_times_table(found), *_stage_table(found), *_model_table(found), *_notes(found)]
    return "\n".join(lines) + "\n"


def significant(value: float) -> str:
    """Write a number with three significant digits and no exponent.

    Example:
        >>> [significant(value) for value in (1234.5, 12.345, 0.012345, float("nan"))]
        ['1234', '12.3', '0.0123', '-']
    """
    if not math.isfinite(value):
        return NONE
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def with_spread(value: Spread) -> str:
    """Write median and quartiles, ``1.23 [1.20, 1.31]``; a single measurement has none."""
    if value.n == 1:
        return significant(value.median)
    return f"{significant(value.median)} [{significant(value.low)}, {significant(value.high)}]"


def _times_table(found: Benchmark) -> list[str]:
    first = next(iter(found.contenders))
    head = ["model", "start-up [s]", "case [s]", f"speed, {first} = 1", "first mask [s]", f"speed, {first} = 1"]
    head += ["peak memory [MB]"]
    rows = []
    for name, times in found.times.items():
        cells = [times.start_up, times.case, times.speed, times.first_mask, times.first_mask_speed]
        rows.append([name, *map(with_spread, cells), with_spread(times.peak_megabytes)])
    return [*_table(head, rows), ""]


def _stage_table(found: Benchmark) -> list[str]:
    head = ["model", *(f"{part} [s]" for part in (*START_UP, *STAGES))]
    rows = []
    for name, times in found.times.items():
        parts = {**times.start_up_parts, **times.stages}
        rows.append([name, *(significant(parts[part].median) for part in (*START_UP, *STAGES))])
    return ["## Where the time goes", "", *_table(head, rows), ""]


def _model_table(found: Benchmark) -> list[str]:
    head = ["model", "runs on", "precision", "folds", "files [MB]", "weights [MB]"]
    rows = [
        [
            name,
            "nnU-Net's predictor, PyTorch" if model.kind == "folder" else model.runtime,
            model.precision,
            " ".join(map(str, model.folds)),
            significant(model.file_megabytes),
            significant(model.weight_megabytes),
        ]
        for name, model in found.contenders.items()
    ]
    return ["## The models", "", *_table(head, rows, n_text=3), ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> list[str]:
    marks = [":--" if column < n_text else "--:" for column in range(len(head))]
    return ["| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)]


def _notes(found: Benchmark) -> list[str]:
    settings = found.settings
    threads = "left to the libraries" if settings.threads is None else str(settings.threads)
    step = "0.5, bundles their own" if settings.step_size is None else f"{settings.step_size:g}"
    return [
        "## How this was measured",
        "",
        f"- {found.hardware}; threads: {threads}; load before: {significant(found.load)}; {found.created}.",
        f"- {len(found.cases)} cases, {settings.repeats} rounds; step size {step}; mirroring "
        f"{'on' if settings.mirroring else 'off'}; bundles with {settings.resampling} resampling.",
        "- Median [quartiles] over cases and rounds; start-up, first mask and memory over rounds. Parts are medians, "
        "too, which need not add up to the median of the whole.",
        "- Models take turns case by case, and every second round goes backwards. Each round starts new processes; all "
        "models' processes stay until it ends, so that memory has to hold them together.",
        "- Start-up: from starting the process until it takes cases (libraries imported, model opened). First mask: "
        "start-up and the first case, cold, which imports what is imported on first use. Case: from file to file after "
        "that; nothing overlaps, unlike in `nnunet_kd predict`.",
        "- Speed: seconds of the first model over seconds of this one, same case and round; 2 is twice as fast.",
        "- Files: what prediction opens. A checkpoint also holds the optimiser, which weights leaves out.",
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401  # any nesting of containers and numbers
    """Replace what JSON cannot hold, ``nan`` and infinities, by ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
