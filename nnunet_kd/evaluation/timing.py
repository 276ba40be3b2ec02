"""Seconds and memory of a prediction, measured with nnU-Net's predictor in a process of its own.

``python -m nnunet_kd.evaluation.timing JOB RESULT`` is that process: it reads a job, predicts
every image once, and writes what it took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import some
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder

N_ROUNDS = 2  # arms take turns, so that a slow minute of the machine does not fall on one of them
STAGES = ("read and preprocess", "network", "resample and write")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is predicted, and how.

    Attributes:
        model_folder: nnU-Net's.
        folds: Members of the ensemble.
        checkpoint: File name in each fold's folder.
        images: Files of each case, one per channel.
        device: ``cpu`` or ``cuda``.
        mirroring: Whether predictions are averaged over mirrored images, as nnU-Net does.
    """

    model_folder: str
    folds: tuple[int | str, ...]
    checkpoint: str
    images: tuple[tuple[str, ...], ...]
    device: str
    mirroring: bool


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What predicting costs, one case at a time in one process.

    Attributes:
        seconds_per_case: Median over cases and rounds, from file to file.
        seconds_per_stage: The same for each part of the work.
        peak_megabytes: Largest memory of the process; on a GPU, of the tensors there.
        megabytes_before: Memory of the process before the model was loaded: libraries only.
        threads: Of PyTorch while the network ran.
        n_cases: Cases that were predicted in each round.
        n_folds: Members of the ensemble.
        device: ``cpu`` or ``cuda``.
        mirroring: Whether predictions were averaged over mirrored images.
        load: Processes that wanted to run in the minute before the first round, ``nan`` where
            the system does not say.
    """

    seconds_per_case: float
    seconds_per_stage: dict[str, float]
    peak_megabytes: float
    megabytes_before: float
    threads: int
    n_cases: int
    n_folds: int
    device: str
    mirroring: bool
    load: float


def find_images(folder: Path, model: ModelFolder) -> tuple[tuple[str, ...], ...]:
    """Return the files of each case, ``CASE_0000.ENDING`` and so on for every channel.

    Raises:
        UsageError: If there are no such files or a channel is missing.
    """
    ending = model.dataset_json.get("file_ending", ".nii.gz")
    n_channels = len(model.dataset_json.get("channel_names", model.dataset_json.get("modality", {})))
    if not folder.is_dir():
        raise UsageError(f"expected a folder of images for --images, found none at '{folder}'; check the path")
    first = sorted(file.name for file in folder.iterdir() if file.name.endswith(f"_0000{ending}"))
    cases = [name.removesuffix(f"_0000{ending}") for name in first]
    files = {case: [folder / f"{case}_{channel:04d}{ending}" for channel in range(n_channels)] for case in cases}
    missing = [file.name for channels in files.values() for file in channels if not file.is_file()]
    if missing or not cases:
        what = f"lacks {some(missing)}" if missing else f"holds no CASE_0000{ending}"
        raise UsageError(f"expected images with {n_channels} channels as nnU-Net names them, '{folder}' {what}")
    return tuple(tuple(str(file.resolve()) for file in channels) for channels in files.values())


def prepare_job(
    model_folder: Path,
    images: Path,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    mirroring: bool = True,
) -> Job:
    """Check everything that a measurement needs; checkpoints are read as data first.

    Args:
        model_folder: nnU-Net's.
        images: Folder with the files of each case.
        folds: Members; ``None`` takes all that exist.
        checkpoint: File name in each fold's folder.
        device: ``cpu`` or ``cuda``.
        mirroring: See :class:`Job`.

    Raises:
        UsageError: If model, checkpoint or images are missing, or the model is the second of a cascade.
    """
    import torch

    from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"expected a device of this machine, got '{device}'; type -device cpu")
    model = open_model_folder(model_folder)
    if model.plans["configurations"].get(model.configuration, {}).get("previous_stage"):
        raise UsageError(f"a cascade cannot be timed from images alone: leave --images out for '{model.path}'")
    chosen = tuple(folds or [fold for fold in model.folds if fold != "all"] or model.folds)
    if not chosen:
        raise UsageError(f"expected a trained fold in '{model.path}', found none; train it or leave --images out")
    for fold in chosen:
        load_checkpoint_safely(model.checkpoint(fold, checkpoint))
    return Job(
        model_folder=str(model.path),
        folds=chosen,
        checkpoint=checkpoint,
        images=find_images(images, model),
        device=device,
        mirroring=mirroring,
    )


def measure(jobs: Mapping[str, Job], *, n_rounds: int = N_ROUNDS) -> dict[str, Timing]:
    """Predict the images of every job, in turns, each time in a new process.

    Args:
        jobs: By arm.
        n_rounds: How often each arm has its turn; every second round goes backwards.

    Raises:
        UsageError: If a prediction fails; names the arm and the last line of its output.
    """
    from tqdm import tqdm

    order = [arm for number in range(n_rounds) for arm in (list(jobs) if number % 2 == 0 else reversed(list(jobs)))]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    raw: dict[str, list[dict[str, Any]]] = {arm: [] for arm in jobs}
    for arm in tqdm(order, desc="timing", unit="run"):
        raw[arm].append(_in_child(arm, jobs[arm]))
    return {arm: _summarise(jobs[arm], results, load) for arm, results in raw.items()}


def _in_child(arm: str, job: Job) -> dict[str, Any]:
    with TemporaryDirectory(prefix="nnunet_kd_timing_") as folder:
        task, result = Path(folder, "job.json"), Path(folder, "result.json")
        task.write_text(json.dumps(asdict(job)), encoding="utf-8")
        command = [sys.executable, "-m", "nnunet_kd.evaluation.timing", str(task), str(result)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0 or not result.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UsageError(f"predicting with arm '{arm}' ({job.model_folder}) failed: {last}")
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return content


def _summarise(job: Job, results: Sequence[Mapping[str, Any]], load: float) -> Timing:
    cases = [stages for result in results for stages in result["seconds"]]
    return Timing(
        seconds_per_case=median(sum(stages) for stages in cases),
        seconds_per_stage={name: median(stages[i] for stages in cases) for i, name in enumerate(STAGES)},
        peak_megabytes=median(result["peak_megabytes"] for result in results),
        megabytes_before=median(result["megabytes_before"] for result in results),
        threads=results[0]["threads"],
        n_cases=len(job.images),
        n_folds=len(job.folds),
        device=job.device,
        mirroring=job.mirroring,
        load=load,
    )


# --- the child process ---


def peak_megabytes() -> float:
    """Return the largest memory this process has had so far, ``nan`` where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not getrusage: on Linux its peak begins with that of the process which started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _predict(predictor: Any, files: Sequence[str], output: str) -> list[float]:  # noqa: ANN401  # untyped in nnU-Net
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    times = [perf_counter()]
    manager, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    image, _, properties = preprocessor.run_case(list(files), None, manager, configuration, predictor.dataset_json)
    times.append(perf_counter())
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu()
    times.append(perf_counter())
    export_prediction_from_logits(logits, properties, configuration, manager, predictor.dataset_json, output)
    times.append(perf_counter())
    return [after - before for before, after in pairwise(times)]


def _run(job: Mapping[str, Any]) -> dict[str, Any]:
    import torch
    from nnunetv2.configuration import default_num_processes
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    cuda = job["device"] == "cuda"
    predictor = nnUNetPredictor(
        use_mirroring=job["mirroring"],
        perform_everything_on_device=cuda,
        device=torch.device(job["device"]),
        allow_tqdm=False,
    )
    before = peak_megabytes()
    predictor.initialize_from_trained_model_folder(job["model_folder"], job["folds"], job["checkpoint"])
    with TemporaryDirectory(prefix="nnunet_kd_timing_") as folder:
        _predict(predictor, job["images"][0], f"{folder}/warm_up")  # kernels are chosen and caches filled here
        seconds = [_predict(predictor, files, f"{folder}/{i}") for i, files in enumerate(job["images"])]
    return {
        "seconds": seconds,
        "megabytes_before": before,
        "peak_megabytes": torch.cuda.max_memory_allocated() / 1e6 if cuda else peak_megabytes(),
        "threads": min(torch.get_num_threads(), default_num_processes),
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
