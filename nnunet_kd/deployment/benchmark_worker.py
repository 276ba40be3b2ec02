"""The process that a model is measured in: ``python -m nnunet_kd.deployment.benchmark_worker``.

It talks in lines of JSON. It reads a job and answers twice, with its libraries imported and with the model open.
Then it reads one case after the other, segments it and answers with the seconds of each stage, until its input ends.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import IO, Any

from nnunet_kd.deployment.stage_times import STAGES
from nnunet_kd.errors import UsageError

Job = Mapping[str, Any]
RunCase = Callable[[list[str], str], dict[str, float]]
OpenModel = Callable[[], RunCase]


class StageClock:
    """Seconds between the ends of stages: what lies between two stages belongs to the later one.

    Example:
        >>> clock = StageClock()
        >>> clock.end("load")
        >>> list(clock.seconds)
        ['load']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def end(self, stage: str) -> None:
        """Give the time since the last stage ended, or since the clock was made, to a stage."""
        now = perf_counter()
        self.seconds[stage], self._last = now - self._last, now


def import_bundle_runner(job: Job) -> OpenModel:
    """Import what runs a bundle, neither PyTorch nor nnU-Net, and return the function that opens it."""
    from nnunet_kd.deployment.bundle import open_bundle
    from nnunet_kd.deployment.inference import pipeline
    from nnunet_kd.deployment.inference.images import write_label_map
    from nnunet_kd.deployment.inference.sliding_window import WindowSettings
    from nnunet_kd.deployment.runtimes import import_runtime, open_network

    import_runtime(job["runtime"])

    def open_model() -> RunCase:
        bundle = open_bundle(job["path"])
        network, plan = open_network(bundle, job["threads"]), bundle.plan
        step_size = bundle.window["step_size"] if job["step_size"] is None else job["step_size"]
        window = WindowSettings(
            step_size=step_size,
            use_gaussian=bundle.window["use_gaussian"],
            mirror_axes=(plan.mirror_axes or ()) if job["mirroring"] else (),
        )
        resampling = job["resampling"]
        settings = pipeline.PipelineSettings(window=window, resampling=resampling)

        def run_case(files: list[str], output: str) -> dict[str, float]:
            clock = StageClock()
            image = pipeline.read_case([Path(file) for file in files], plan)
            clock.end("load")
            case, place = pipeline.prepare_case(image, plan, None, resampling), image.without_voxels()
            del image  # its memory is not needed any more, as in prediction
            clock.end("preprocess")
            logits = pipeline.predict_prepared(case, plan, network, settings)
            clock.end("network")
            labels = pipeline.label_map(logits, case, plan, resampling)
            clock.end("resample")
            write_label_map(labels, Path(output + plan.file_ending), place, plan.image_reader_writer)
            clock.end("write")
            return clock.seconds

        return run_case

    return open_model


def import_stock_runner(job: Job) -> OpenModel:
    """Import PyTorch and nnU-Net and return the function that opens a model folder with nnU-Net's own predictor."""
    import torch
    from nnunetv2.configuration import default_num_processes
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    def open_model() -> RunCase:
        if job["threads"]:
            torch.set_num_threads(job["threads"])
        predictor = nnUNetPredictor(
            tile_step_size=0.5 if job["step_size"] is None else job["step_size"],
            use_mirroring=job["mirroring"],
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(job["path"], tuple(job["folds"]), job["checkpoint"])
        plans, configuration = predictor.plans_manager, predictor.configuration_manager
        dataset, writer = predictor.dataset_json, plans.image_reader_writer_class()

        def run_case(files: list[str], output: str) -> dict[str, float]:
            # what nnU-Net's run_case and export_prediction_from_logits do, in the parts they consist of
            clock = StageClock()
            image, properties = writer.read_images(files)
            clock.end("load")
            preprocessor = configuration.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case_npy(image, None, properties, plans, configuration, dataset)
            del image
            clock.end("preprocess")
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
            clock.end("network")
            labels = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                plans,
                configuration,
                predictor.label_manager,
                properties,
                num_threads_torch=job["threads"] or default_num_processes,
            )
            del logits
            clock.end("resample")
            writer.write_seg(labels, output + dataset["file_ending"], properties)
            clock.end("write")
            return clock.seconds

        return run_case

    return open_model


RUNNERS: dict[str, Callable[[Job], OpenModel]] = {"bundle": import_bundle_runner, "folder": import_stock_runner}


def peak_with_children() -> float:
    """Return the largest memory of this process plus that of each living child so far, 10^6 bytes."""
    from nnunet_kd.evaluation.timing import peak_megabytes

    children = Path(f"/proc/self/task/{os.getpid()}/children")
    numbers = children.read_text().split() if children.is_file() else []
    return peak_megabytes() + sum(_peak_of(Path("/proc", number, "status")) for number in numbers)


def _peak_of(status: Path) -> float:
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # it has ended
        return 0.0
    return int(line.split()[1]) * 1024 / 1e6


@contextmanager
def _answers() -> Iterator[IO[str]]:
    """Give the output that answers go to; whatever libraries print goes to stderr from here on."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield answers


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer a job and its cases until the input ends.

    Args:
        requests: A job as one line of JSON, then one line with ``files`` and ``output`` per case.
        answers: Gets one line of JSON for each thing done; ``{"error": ...}`` is the last.
    """

    def answer(**content: Any) -> None:  # noqa: ANN401  # JSON values
        print(json.dumps(content), file=answers, flush=True)

    try:
        job = json.loads(requests.readline())
        open_model = RUNNERS[job["kind"]](job)
        answer(done="libraries")
        before = peak_with_children()
        run_case = open_model()
        answer(done="model", megabytes=before)
        for line in requests:
            case = json.loads(line)
            seconds = run_case(case["files"], case["output"])
            answer(seconds={stage: seconds[stage] for stage in STAGES}, megabytes=peak_with_children())
    except UsageError as error:
        answer(error=str(error))
    except Exception as error:  # noqa: BLE001  # whatever libraries raise
        traceback.print_exc()
        answer(error=f"{type(error).__name__}: {error}")


def main() -> None:
    """Serve the process that started this one."""
    from nnunet_kd import discovery

    discovery.register()
    with _answers() as answers:
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
