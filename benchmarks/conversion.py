"""How fast a Decathlon task becomes a raw data set, against nnU-Net's own converter on the same folder in one run.

Whole commands in turn, each into an empty folder; medians of the wall times, and the largest sum over all processes of
a command of the memory they hold. Ours reads and checks every voxel and hashes every file, nnU-Net's does not; both
split the channels of 4-D files. The second task is made here: 4-D, two channels.

    python benchmarks/conversion.py --data Task04_Hippocampus [--repeats 3] [--processes 2] [-o results/conversion.json]
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study_report import replace_marked

HERE = Path(__file__).resolve().parent
SAMPLE_SECONDS = 0.02
THEIRS = "nnUNetv2_convert_MSD_dataset"
OURS = ("copy", "link")


def synthetic_task(folder: Path, n_cases: int, shape: Sequence[int]) -> Path:
    """Write a task of two channels: smooth intensities with noise, which compress about as scans do."""
    import nibabel
    import numpy as np

    rng = np.random.default_rng(0)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in grid))
    names = [f"prostate_{number:02d}.nii.gz" for number in range(n_cases)]
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for name in names:
        channels = [1000 * np.clip(1 - radius, 0, None) + rng.normal(0, 20, shape) for _ in range(2)]
        image = nibabel.Nifti1Image(np.stack(channels, -1).astype(np.int16), np.diag([0.6, 0.6, 3.6, 1]))
        nibabel.save(image, folder / "imagesTr" / name)
        label = (radius < 0.5).astype(np.uint8) + (radius < 0.2)
        nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), image.affine), folder / "labelsTr" / name)
    listing = {
        "name": "Prostate",
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": n_cases,
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def staged(task: Path, folder: Path) -> Path:
    """Return the task, or a copy of it with the empty ``imagesTs`` that nnU-Net's converter asks for."""
    if (task / "imagesTs").is_dir():
        return task.resolve()
    target = folder / task.resolve().name
    shutil.copytree(task, target, copy_function=shutil.copyfile)
    target.chmod(0o755)  # as read-only as its original otherwise
    (target / "imagesTs").mkdir()
    return target


def measure(command: Sequence[str], raw: Path) -> tuple[float, int]:
    """Run a command into an empty raw folder; return seconds and the peak memory of its process tree [bytes]."""
    import psutil

    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    variables = {f"nnUNet_{name}": str(raw) for name in ("raw", "preprocessed", "results")}
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT)
        tree = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, _memory(tree))
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - start
        if child.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {child.returncode}:\n{output.read().decode()}")
    return seconds, peak


def _memory(process: Any) -> int:  # noqa: ANN401  # psutil's process
    import psutil

    total = 0
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:  # it has just ended
        return 0
    for each in tree:
        try:
            total += each.memory_info().rss
        except psutil.Error:
            continue
    return total


def compare(task: Path, raw: Path, repeats: int, processes: int) -> dict[str, dict[str, float]]:
    """Run all commands in turn and return the medians of each."""
    scripts = Path(sys.executable).parent
    commands = {THEIRS: [str(scripts / THEIRS), "-i", str(task), "-np", str(processes)]}
    for transfer in OURS:
        ours = [sys.executable, "-m", "nnunet_kd.cli", "convert", "decathlon", str(task), f"--{transfer}"]
        commands[f"nnunet_kd convert --{transfer}"] = [*ours, "-np", str(processes)]
    for path in task.resolve().rglob("*.nii.gz"):  # all commands find the files in memory
        path.read_bytes()
    runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(measure(command, raw))
    theirs = statistics.median(seconds for seconds, _ in runs[THEIRS])
    return {
        name: {
            "seconds": round(statistics.median(seconds for seconds, _ in own), 3),
            "theirs_over_it": round(theirs / statistics.median(seconds for seconds, _ in own), 3),
            "peak_mib": round(max(peak for _, peak in own) / 2**20),
        }
        for name, own in runs.items()
    }


def table(tasks: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the Markdown table."""
    lines = ["| task | command | seconds | nnU-Net's / it | peak memory [MiB] |", "|---|---|---|---|---|"]
    for task, found in tasks.items():
        for name, row in found.items():
            cells = f"{row['seconds']:.2f} | {row['theirs_over_it']:.2f} | {row['peak_mib']:.0f}"
            lines.append(f"| {task} | `{name}` | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a real task's folder; without it only the one made here")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", type=int, nargs=2, default=(8, 24), help="of the task made here, in two sizes")
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 60))
    parser.add_argument("-o", type=Path, default=HERE / "results" / "conversion.json")
    options = parser.parse_args()
    from nnunet_kd.hardware import describe

    tasks: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if options.data:
            task = staged(options.data, work)
            tasks[task.name] = compare(task, work / "raw", options.repeats, options.processes)
        for n_cases in options.cases:  # two sizes, to see that memory does not grow with the data set
            task = synthetic_task(work / str(n_cases) / "Task05_Prostate", n_cases, options.shape)
            name = f"{n_cases} synthetic cases {'x'.join(map(str, options.shape))}x2"
            tasks[name] = compare(task, work / "raw", options.repeats, options.processes)
    result = {
        "hardware": describe(), "processes": options.processes, "repeats": options.repeats,
        "python": platform.python_version(), "tasks": tasks,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    options.o.write_text(json.dumps(result, indent=1) + "\n")
    note = f"Medians of {options.repeats}, processes: {options.processes}; {result['hardware']}."
    replace_marked("conversion", f"{table(tasks)}\n\n{note}")


if __name__ == "__main__":
    main()
