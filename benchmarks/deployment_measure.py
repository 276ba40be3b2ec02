"""Whole commands: wall time, memory of everything they start, and what their label maps are worth."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from study import STRUCTURES, commit

TEACHER, STOCK = "teacher, nnU-Net", "student, nnU-Net"
HIPPOCAMPUS_STUDENTS = {f"student, ours, {precision}": precision for precision in ("f32", "bf16", "int8")}
CT_STUDENTS = {"student, ours, f32": (), "student, ours, f32, fast resampling": ("--resampling", "fast")}
PAUSES = (0.05, 1.0)  # seconds between two looks at the memory, at least and at most
SHARE_FOR_LOOKING = 30  # between these so many times the processor's seconds of a look
LIBRARIES = ("torch", "nnunetv2", "openvino", "nncf", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command that is measured.

    Attributes:
        words: Of the command; ``{images}`` and ``{output}`` are filled in.
        model: Folder of the model, a bundle or one of nnU-Net's.
    """

    words: Sequence[str]
    model: Path


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: From its start to its end, Python's start included.
        peak_megabytes: Largest memory of it and all its children at a time, 10^6 bytes; shared pages count once.
    """

    seconds: float
    peak_megabytes: float


def script(name: str) -> str:
    """Return the path of an installed command."""
    return str(Path(sys.executable).parent / name)


def clean_environment(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the variables for a command: nnU-Net's folders, and none of its other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")}
    return {**kept, **{name: str(path) for name, path in folders.items()}}


def log_of(output: Path) -> Path:
    """Return where a command's output is written, beside its folder of label maps."""
    return output.with_suffix(".log")


def run_command(command: Command, images: Path, output: Path, environment: Mapping[str, str]) -> Taken:
    """Run a command into an empty folder and watch its memory.

    Raises:
        SystemExit: If it fails; with what it printed last.
    """
    shutil.rmtree(output, ignore_errors=True)
    log = log_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    words = [word.format(images=images, output=output) for word in command.words]
    with log.open("w") as file:
        start = time.perf_counter()
        child = subprocess.Popen(words, env=dict(environment), stdout=file, stderr=subprocess.STDOUT)
        watch = _MemoryWatch(child.pid)
        watch.start()
        status = child.wait()  # in the kernel: no polling that would round the seconds up
        seconds = time.perf_counter() - start
        watch.stop()
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {status}:\n{log.read_text(errors='replace')[-2000:]}")
    return Taken(seconds=seconds, peak_megabytes=watch.peak / 1e6)


class _MemoryWatch(Thread):
    """Looks at a process and all below it, as often as costs next to nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.number, self.peak, self._done = number, 0, Event()

    def run(self) -> None:
        pause = 0.0
        while not self._done.wait(pause):
            start = time.thread_time()  # not the clock: on a busy machine that would mean few looks
            self.peak = max(self.peak, tree_memory(self.number))
            pause = float(np.clip(SHARE_FOR_LOOKING * (time.thread_time() - start), *PAUSES))

    def stop(self) -> None:
        self._done.set()
        self.join()


def tree_memory(number: int) -> int:
    """Return the bytes that a process and its descendants hold, 0 once it has ended.

    On Linux each shared page is divided among those who share it, so that nnU-Net's workers are not charged for the
    libraries that they have in common; elsewhere it is the sum of resident sizes.
    """
    import psutil

    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(number)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error, OSError, StopIteration):
                total += _own_memory(process)
    return total


def _own_memory(process: Any) -> int:  # noqa: ANN401  # psutil's process
    shares = Path(f"/proc/{process.pid}/smaps_rollup")
    if not shares.parent.parent.joinpath("self", "smaps_rollup").is_file():
        return int(process.memory_info().rss)
    line = next(line for line in shares.read_text().splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def network_seconds(log: str) -> tuple[int, int] | None:
    """Return tiles and whole seconds of nnU-Net's own progress bar, of the largest of several; ``None`` without one.

    Example:
        >>> network_seconds("100%|####| 36/36 [02:31<00:00,  4.20s/it]")
        (36, 151)
    """
    bars = [
        (int(total), sum(int(part) * 60**i for i, part in enumerate(reversed(clock.split(":")))))
        for total, clock in re.findall(r"(\d+)/\1 \[(\d+(?::\d+)+)<", log)
    ]
    return max(bars, default=None)


def file_megabytes(folder: Path) -> float:
    """Return the size of a model, 10^6 bytes: a bundle's network, or the weights alone of nnU-Net's checkpoint."""
    if (folder / "bundle.json").is_file():
        files = json.loads((folder / "bundle.json").read_text())["files"]
        return sum(facts["bytes"] for name, facts in files.items() if Path(name).suffix in (".xml", ".bin")) / 1e6
    from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

    weights = load_checkpoint_safely(folder / "fold_0" / "checkpoint_final.pth")["network_weights"]
    # nnU-Net's blocks list a tensor under several names
    tensors = {tensor.data_ptr(): tensor for tensor in weights.values()}
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6)


def dice_scores(reference: Path, output: Path, cases: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return Dice per case and structure."""
    from nnunet_kd.evaluation.cases import read_segmentation
    from nnunet_kd.evaluation.scores import dice

    found = {}
    for case in cases:
        truth, ours = (read_segmentation(folder / f"{case}.nii.gz")[0] for folder in (reference, output))
        labels = {name: int(label) for label, name in STRUCTURES.items()}
        found[case] = {name: round(dice(truth == label, ours == label), 6) for name, label in labels.items()}
    return found


def agreement(first: Path, second: Path, cases: Sequence[str]) -> dict[str, float]:
    """Compare two folders of label maps.

    Returns:
        ``equal``: share of all voxels with equal labels; ``worst_case``: the same of the worst case;
        ``other_per_foreground``: voxels with another label for each voxel that the first has labelled.
    """
    from nnunet_kd.evaluation.cases import read_segmentation

    counts = []
    for case in cases:
        one, other = (read_segmentation(folder / f"{case}.nii.gz")[0] for folder in (first, second))
        counts.append((int(np.count_nonzero(one != other)), one.size, int(np.count_nonzero(one))))
    unequal, voxels, foreground = (sum(column) for column in zip(*counts, strict=True))
    return {
        "equal": 1 - unequal / voxels,
        "worst_case": min(1 - n / size for n, size, _ in counts),
        "other_per_foreground": unequal / max(foreground, 1),
    }


def write_result(path: Path, facts: Mapping[str, Any]) -> None:
    """Write one finished measurement with what it was made on."""
    from nnunet_kd.hardware import describe

    data = {
        **facts,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "hardware": describe(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    temporary.replace(path)
