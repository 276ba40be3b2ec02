"""The process that a candidate is measured in: ``python -m nnunet_kd.deployment.budget_worker JOB RESULT``.

It predicts one case again and again as ``nnunet_kd predict`` does, without PyTorch. The network is a candidate's, with
random weights, so that what follows it is given logits of a real label map: how long the way back to labels and the
compression of their file take depends on them.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.bundle import WINDOW, Bundle
from nnunet_kd.deployment.inference.cropping import as_slices
from nnunet_kd.deployment.inference.images import read_image
from nnunet_kd.deployment.inference.pipeline import PipelineSettings, PreparedCase
from nnunet_kd.deployment.inference.plan import InferencePlan
from nnunet_kd.deployment.inference.sliding_window import Network, WindowSettings
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.prediction.overlap import run_overlapped
from nnunet_kd.deployment.predictor import Predictor, Prepared, Segmented
from nnunet_kd.deployment.runtimes import network_from_file
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.timing import peak_megabytes

MOST_TILES = 8  # of a case that go through the network; the others take the last one's logits
PASSES = (3, 60)  # at least and at most
_N_OVERLAPPED = 3  # one is read, one computed, one written


class SampledNetwork:
    """A network of which some tiles are computed and timed; the others get the last one's logits at once.

    Args:
        network: From patches to logits.
        most: Tiles that are computed after each :meth:`restart`.
    """

    def __init__(self, network: Network, most: int = MOST_TILES) -> None:
        self._network, self._most = network, most
        self.restart()

    def restart(self) -> None:
        """Begin another case."""
        self.seconds: list[float] = []
        self.n_tiles = 0

    def __call__(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits of a patch, ``(1, n_outputs, *patch)``."""
        self.n_tiles += 1
        if len(self.seconds) < self._most:
            start = perf_counter()
            self._last = self._network(patch)
            self.seconds.append(perf_counter() - start)
        return self._last


def example_labels(shape: Sequence[int], plan: InferencePlan) -> NDArray[np.uint16]:
    """Return boxes of all labels inside one another in the middle of a volume, where there is no label map."""
    labels = np.zeros(shape, dtype=np.uint16)
    n = len(plan.foreground_labels)
    for index, label in enumerate(plan.foreground_labels):
        share = 0.5 * (1 - index / (n + 1))  # of each axis
        sides = ((round(size * (1 - share) / 2), round(size * (1 + share) / 2)) for size in shape)
        labels[as_slices(list(sides))] = label
    return labels


def put_labels(logits: NDArray[np.floating], labels: NDArray[np.integer[Any]], plan: InferencePlan) -> None:
    """Overwrite logits so that they say what a label map says.

    Args:
        logits: ``(n_outputs, x, y, z)``.
        labels: Of the same body on another grid, ``(x, y, z)``; the nearest voxel counts.
        plan: The model's.
    """
    index = [
        np.minimum((np.arange(n) + 0.5) * have / n, have - 1).astype(int)
        for n, have in zip(logits.shape[1:], labels.shape, strict=True)
    ]
    if plan.has_regions:
        named = [value for name, value in plan.labels.items() if name != "ignore" and value not in (0, (0,))]
        wanted = [value if isinstance(value, tuple) else (value,) for value in named]
    else:
        wanted = [(0,), *((label,) for label in plan.foreground_labels)]
    for x, plane in enumerate(index[0]):  # plane by plane: no second volume in memory
        here = labels[plane][np.ix_(index[1], index[2])]
        for channel, values in zip(logits, wanted, strict=True):
            channel[x] = np.where(np.isin(here, values), 4, -4)


class MeasuredPredictor(Predictor):
    """A predictor whose logits are replaced, after the network has been timed, by those of a label map.

    Args:
        plan: The candidate's.
        network: Its network.
        label: File of the case's label map, if there is one.
    """

    def __init__(self, plan: InferencePlan, network: SampledNetwork, label: Path | None) -> None:
        facts: dict[str, Any] = {"versions": {}, "source": {}}
        bundle = Bundle(path=Path(), plan=plan, runtime="openvino", precision="f32", folds=(), window=WINDOW, **facts)
        window = WindowSettings(step_size=float(WINDOW["step_size"]), use_gaussian=bool(WINDOW["use_gaussian"]))
        super().__init__(bundle, PipelineSettings(window=window), runtime="openvino")
        self.__dict__["network"] = self.sampled = network
        self.labels = None if label is None else _read_labels(label, plan)

    def compute(self, prepared: Prepared, seconds: dict[str, float]) -> Segmented:
        """Run the network over a prepared case, and replace what it found."""
        done = super().compute(prepared, seconds)
        put_labels(done.logits, self._crop(done.case), self.plan)
        return done

    def _crop(self, case: PreparedCase) -> NDArray[np.integer[Any]]:
        if self.labels is None:
            return example_labels(case.cropped_shape, self.plan)
        return self.labels.transpose(self.plan.transpose_forward)[as_slices(case.box)]


def _read_labels(file: Path, plan: InferencePlan) -> NDArray[np.uint16]:
    labels: NDArray[np.uint16] = read_image([file], plan.image_reader_writer).array[0].astype(np.uint16)
    return labels


def timed_pass(predictor: MeasuredPredictor, case: CaseFiles) -> tuple[dict[str, float], float, int]:
    """Predict a case once.

    Returns:
        Seconds by stage with the network apart from ``window``, of one tile, and the number of tiles.
    """
    seconds: dict[str, float] = {}
    network = predictor.sampled
    network.restart()
    predictor.finish(case, predictor.compute(predictor.prepare(case, seconds), seconds), seconds)
    stages = {
        "load": seconds["read"],
        "preprocess": seconds["prepare"],
        "window": max(seconds["network"] - sum(network.seconds), 0.0),
        "resample": seconds["resample"],
        "write": seconds["write"],
    }
    return stages, sum(network.seconds) / len(network.seconds), network.n_tiles


def measure_case(predictor: MeasuredPredictor, case: CaseFiles, enough_seconds: float) -> dict[str, Any]:
    """Predict a case cold once, then warm until the medians stand, then three times overlapped for the memory.

    Args:
        predictor: With the candidate's network.
        case: That is predicted.
        enough_seconds: Of timed passes, after which no further one is started.

    Raises:
        UsageError: If it cannot be predicted.
    """
    timed_pass(predictor, case)
    passes: list[tuple[dict[str, float], float, int]] = []
    start = perf_counter()
    while len(passes) < PASSES[0] or (len(passes) < PASSES[1] and perf_counter() - start < enough_seconds):
        passes.append(timed_pass(predictor, case))
    copies = [
        CaseFiles(name=str(n), files=case.files, output=case.output.with_name(f"{n}_{case.output.name}"))
        for n in range(_N_OVERLAPPED)
    ]
    predictor.sampled.restart()
    for outcome in run_overlapped(copies, predictor, started=lambda: None):
        if outcome.fault is not None:
            raise UsageError(outcome.fault.message)
    ours = 0 if predictor.labels is None else predictor.labels.nbytes
    return {
        "stages": {stage: median(one[stage] for one, _, _ in passes) for stage in passes[0][0]},
        "tile_seconds": median(tile for _, tile, _ in passes),
        "n_tiles": passes[0][2],
        "peak_megabytes": peak_megabytes() - ours / 1e6,
    }


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Load a candidate's network and measure it.

    Args:
        job: ``network`` (file), ``precision``, ``threads``, ``plan``, ``images``, ``label``, ``output``,
            ``enough_seconds`` and ``started``, the time at which this process was started.

    Raises:
        UsageError: If the network cannot be loaded or the case not be predicted.
    """
    network = network_from_file(Path(job["network"]), "openvino", job["precision"], job["threads"])
    start_up = time() - job["started"]
    label = None if job["label"] is None else Path(job["label"])
    predictor = MeasuredPredictor(InferencePlan.from_json(job["plan"]), SampledNetwork(network), label)
    files = tuple(Path(file) for file in job["images"])
    case = CaseFiles(name="case", files=files, output=Path(job["output"]))
    found = measure_case(predictor, case, job["enough_seconds"])
    return {**found, "start_up": start_up}


def main() -> None:
    """Read a job and write what was found, or why nothing was."""
    job_file, result_file = sys.argv[1:]
    try:
        result = run_job(json.loads(Path(job_file).read_text(encoding="utf-8")))
    except UsageError as error:
        result = {"error": str(error)}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
