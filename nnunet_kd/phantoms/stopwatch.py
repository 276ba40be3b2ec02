"""Time one training step of teacher and student on this machine, so that a schedule fits into minutes.

``python -m nnunet_kd.phantoms.stopwatch PLANS.json CONFIGURATION SHRINK`` prints one line of JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_N_WARM_UP, _N_TIMED = 2, 5


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of computing, without data loading.

    Attributes:
        teacher: A training step of the full network.
        student: A training step of the shrunken network.
        guidance: The teacher's part of a distilled step, one forward pass.
        start: Importing what every command of nnU-Net imports.
    """

    teacher: float
    student: float
    guidance: float
    start: float

    def slower(self, factor: float) -> "StepTimes":
        """Return the times of a machine that takes ``factor`` times as long."""
        return StepTimes(**{name: value * factor for name, value in asdict(self).items()})


def measure(plans_file: Path, configuration: str, shrink_by: int, *, started: float | None = None) -> StepTimes:
    """Run a few steps of both networks on random data.

    Args:
        plans_file: nnU-Net's plans, with ``dataset.json`` beside them.
        configuration: One of the plans' configurations.
        shrink_by: Division of the student's features.
        started: When this process began, on the performance counter.
    """
    started = time.perf_counter() if started is None else started
    # heavy, and the schedule only needs the dataclass
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_kd.hardware import has_native_bf16
    from nnunet_kd.planning.students import shrink

    start = time.perf_counter() - started
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    dataset = json.loads((plans_file.parent / "dataset.json").read_text(encoding="utf-8"))
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    n_classes = manager.get_label_manager(dataset).num_segmentation_heads
    architecture = plans["configurations"][configuration]["architecture"]
    data = torch.randn(settings.batch_size, len(dataset["channel_names"]), *settings.patch_size)
    teacher, student = (
        _network(plan, data.shape[1], n_classes) for plan in (architecture, shrink(architecture, shrink_by))
    )
    dtype = torch.bfloat16 if has_native_bf16() else None  # as the trainer chooses

    def step(network: Any) -> Callable[[], None]:  # noqa: ANN401  # nnU-Net's builder has no types
        optimizer = torch.optim.AdamW(network.parameters())

        def run() -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                outputs = network(data)
            loss = torch.stack([output.float().log_softmax(1)[:, 0].mean() for output in outputs]).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no hints here
            optimizer.step()

        return run

    def guide() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            teacher(data)

    return StepTimes(
        teacher=_seconds(step(teacher)), student=_seconds(step(student)), guidance=_seconds(guide), start=start
    )


def _network(architecture: Any, n_channels: int, n_classes: int) -> Any:  # noqa: ANN401  # as above
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        n_channels,
        n_classes,
        allow_init=True,
        deep_supervision=True,
    )


def _seconds(run: Callable[[], None]) -> float:
    """Return the median time of a call, after a warm-up."""
    times = []
    for _ in range(_N_WARM_UP + _N_TIMED):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return sorted(times[_N_WARM_UP:])[_N_TIMED // 2]


if __name__ == "__main__":
    begun = time.perf_counter()
    sys.stdout.write(
        json.dumps(asdict(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), started=begun))) + "\n"
    )
