"""Measure a student that is only planned: convert it with random weights, and predict a case in a new process."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any

from nnunet_kd.deployment.bundle import MODEL_FILES, WINDOW
from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.deployment.runtimes import computes_bf16, import_runtime
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import describe, n_cores
from nnunet_kd.planning.budget_search import Measurement
from nnunet_kd.planning.median_case import BudgetCase
from nnunet_kd.planning.model_folder import ModelFolder

ENOUGH_SECONDS = 4.0  # of timed passes for each student
PROTOCOL = 1  # a change of how seconds are taken makes stored ones worthless


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What students are measured on.

    Attributes:
        precision: ``f32`` or ``bf16``.
        threads: Cores of the process.

    Raises:
        UsageError: If OpenVINO is missing, or the processor has no bfloat16.
    """

    precision: str = "f32"
    threads: int

    def __post_init__(self) -> None:
        import_runtime("openvino")
        if self.threads < 1:
            raise UsageError(f"--threads: expected at least 1, got {self.threads}")
        if self.precision == "bf16" and not computes_bf16():
            raise UsageError("--on cpu-bf16: this processor has no bfloat16; type --on cpu")

    @classmethod
    def of(cls, on: str, threads: int | None) -> "Machine":
        """Return this machine as ``--on`` names it.

        Args:
            on: ``cpu`` or ``cpu-bf16``.
            threads: Cores; ``None`` takes all that this process may use.
        """
        return cls(precision="bf16" if on == "cpu-bf16" else "f32", threads=n_cores() if threads is None else threads)

    def describe(self) -> str:
        """Return one line: processor, threads, library and precision."""
        version = import_runtime("openvino").__version__.partition("-")[0]
        return f"{describe()}; {self.threads} threads, OpenVINO {version}, {self.precision}"


def measured_facts(model: ModelFolder, case: BudgetCase, machine: Machine) -> dict[str, Any]:
    """Return everything that a measurement depends on, as JSON values."""
    plan = _inference_plan(model)
    files = [*case.images, *([case.label] if case.label else [])]
    return {
        "protocol": PROTOCOL,
        "machine": machine.describe(),
        "case": case.name,
        "files": [[file.name, file.stat().st_size] for file in files],
        "window": WINDOW,
        "plan": plan.to_json(),
        "architecture": model.plans["configurations"][model.configuration]["architecture"],
    }


def measure_student(model: ModelFolder, case: BudgetCase, machine: Machine) -> Measurement:
    """Measure what predicting a case takes with a planned student.

    Args:
        model: The planned model, without weights.
        case: That is predicted.
        machine: How.

    Raises:
        UsageError: If the network cannot be built or converted, or the case not be predicted.
        OSError: If there is no room for the network.
    """
    plan = _inference_plan(model)
    with TemporaryDirectory(prefix="nnunet_kd_budget_") as name:
        folder = Path(name)
        network = _convert(model, plan, folder)
        job = {
            "network": str(network),
            "precision": machine.precision,
            "threads": machine.threads,
            "plan": plan.to_json(),
            "images": [str(file.resolve()) for file in case.images],
            "label": None if case.label is None else str(case.label.resolve()),
            "enough_seconds": ENOUGH_SECONDS,
            "output": str(folder / f"case{plan.file_ending}"),
        }
        found = _run(job, folder, machine.threads)
        megabytes = sum((folder / file).stat().st_size for file in MODEL_FILES["openvino"]) / 1e6
    return Measurement(file_megabytes=megabytes, **found)


def _inference_plan(model: ModelFolder) -> InferencePlan:
    return make_inference_plan(model.plans, model.dataset_json, model.configuration, None)


def _convert(model: ModelFolder, plan: InferencePlan, folder: Path) -> Path:
    import torch

    from nnunet_kd.deployment.conversion import save_openvino, to_openvino
    from nnunet_kd.networks.build import build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(model, deep_supervision=False).eval().requires_grad_(requires_grad=False)
    return save_openvino(to_openvino(network, (1, plan.n_inputs, *plan.patch_size)), folder)


def _run(job: Mapping[str, Any], folder: Path, threads: int) -> dict[str, Any]:
    job_file, result_file, log = folder / "job.json", folder / "result.json", folder / "log.txt"
    job_file.write_text(json.dumps({**job, "started": time()}), encoding="utf-8")
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    command = [sys.executable, "-m", "nnunet_kd.deployment.budget_worker", str(job_file), str(result_file)]
    with log.open("w", encoding="utf-8") as output:
        finished = subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(names, str(threads))},
            check=False,
        )
    if not result_file.is_file():
        raise UsageError(f"measuring ended {_reason(finished.returncode, log)}")
    result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in result:
        raise UsageError(f"measuring ended: {result['error']}")
    return result


def _reason(status: int, log: Path) -> str:
    if status < 0:
        return f"by signal {-status}; it may have run out of memory"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"with status {status}: {(lines or ['no word'])[-1]:.200}"
