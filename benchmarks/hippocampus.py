"""Distillation on real data: Decathlon hippocampus, small students against their controls.

Every arm is trained by KDTrainer with the same schedule, the same seeds and so the same batches; what
differs is the teacher. Each finished run is one JSON in ``results/hippocampus/``; runs that have one are
not repeated, so the script can be stopped and started again.

    python benchmarks/hippocampus.py run --data Task04_Hippocampus --teachers FOLDER [FOLDER FOLDER]
    python benchmarks/hippocampus.py report
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SETTINGS: dict[str, Any] = json.loads((HERE / "hippocampus.json").read_text())
RESULTS = HERE / "results" / "hippocampus"
STUDENT_FOLDER = "KDTrainer__{plans}__{configuration}"
_TRAIN = (
    "import sys, torch; from nnunetv2.run.run_training import run_training; torch.set_num_threads(int(sys.argv[4]));"
    "run_training(sys.argv[1], sys.argv[2], 0, 'KDTrainer', sys.argv[3], device=torch.device('cpu'), "
    "continue_training=True)"
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: an arm at a size with a seed. The teacher has size 1 and no seed."""

    arm: str
    shrink: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.arm.replace(', ', '-').replace(' ', '-')}_shrink{self.shrink}_seed{self.seed}"

    @property
    def plans(self) -> str:
        """Name of its plans."""
        return "nnUNetKDBench" + "".join(p.capitalize() for p in self.name.replace("-", "_").split("_")) + "Plans"

    @property
    def result(self) -> Path:
        """Its JSON among the committed results."""
        return RESULTS / f"{self.name}.json"


def all_runs() -> Iterator[Run]:
    """Yield the runs seed by seed, so that an unfinished benchmark is balanced over the arms.

    Then one run of every method (the screening), then two more of the best.
    """
    for seed in range(3):
        for shrink in (8, 4):
            for arm, what in SETTINGS["arms"].items():
                if seed in what["seeds"][str(shrink)]:
                    yield Run(arm=arm, shrink=shrink, seed=seed)
    methods = SETTINGS["methods"]
    for seed, names in ((0, methods["screened"]), (1, methods["best"]), (2, methods["best"])):
        yield from (Run(arm=name, shrink=methods["shrink"], seed=seed) for name in names)


def options_of(arm: str) -> list[str]:
    """Return what ``nnunet_kd plan`` is told for an arm, or for a method of the screening."""
    if arm in SETTINGS["methods"]["screened"]:
        return ["--method", arm]
    options: list[str] = SETTINGS["arms"].get(arm, {}).get("options", [])
    return options


def n_teachers(arm: str) -> int:
    """Return how many teachers an arm learns from."""
    return int(SETTINGS["arms"].get(arm, {}).get("teachers", 1))


class Workplace:
    """nnU-Net's folders for the benchmark, and the commands that run in them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.dataset = "Dataset004_Hippocampus"
        self.preprocessed = folder / "preprocessed" / self.dataset
        self.teacher = folder / "results" / self.dataset / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        self.teachers = [self.teacher, *sorted((folder / "teachers").glob("*/nnUNetTrainer__*"))]

    def environment(self, augmentation_workers: int = 0) -> dict[str, str]:
        """0 augmentation workers make a seed exact: every arm then sees the same batches."""
        folders = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed", "results")}
        for path in folders.values():
            Path(path).mkdir(parents=True, exist_ok=True)
        threads = str(SETTINGS["threads"])
        return {
            **os.environ, **folders, "nnUNet_n_proc_DA": str(augmentation_workers), "nnUNet_def_n_proc": threads,
            "OMP_NUM_THREADS": threads, "nnUNet_compile": "true",
        }  # fmt: skip

    def call(self, arguments: Sequence[str], log: Path, augmentation_workers: int = 0) -> None:
        """Run a child to its end; its output goes to a file that is named when it fails."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            status = subprocess.run(
                [sys.executable, *arguments], env=self.environment(augmentation_workers), stdout=file,
                stderr=subprocess.STDOUT, check=False, cwd=self.folder,
            ).returncode  # fmt: skip
        if status:
            raise SystemExit(f"status {status}; see {log}")

    def test_cases(self) -> list[str]:
        """Return the cases no arm trains on."""
        return (self.data / "test_cases.txt").read_text().split()

    def prepare(self) -> None:
        """Convert, plan and preprocess once; fold 0 validates on exactly the test cases."""
        if (self.preprocessed / "splits_final.json").is_file():
            return
        logs = self.folder / "logs"
        number = str(SETTINGS["dataset"])
        self.call(
            ["-m", "nnunet_kd", "convert", "decathlon", str(self.data), "-d", number, "--overwrite"],
            logs / "convert.log",
            1,
        )
        module = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
        entry = f"from {module} import plan_and_preprocess_entry as f; f()"
        options = ["-d", number, "-c", SETTINGS["configuration"], "-np", "2", "-npfp", "2"]
        self.call(["-c", entry, *options], logs / "preprocess.log", 1)
        plans_file = self.preprocessed / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        plans["configurations"][SETTINGS["configuration"]]["batch_size"] = SETTINGS["batch_size"]
        plans_file.write_text(json.dumps(plans, indent=4))
        cases = sorted(path.name.split(".")[0] for path in (self.preprocessed / "gt_segmentations").glob("*.nii.gz"))
        test = self.test_cases()
        split = {"train": [case for case in cases if case not in test], "val": test}
        (self.preprocessed / "splits_final.json").write_text(json.dumps([split]))

    def provide_teachers(self, teachers: Sequence[Path]) -> None:
        """Copy given teachers, or train one by the same recipe as the students."""
        targets = [
            self.teacher,
            *(self.folder / "teachers" / str(i) / self.teacher.name for i in range(1, len(teachers))),
        ]
        for source, target in zip(teachers, targets, strict=False):
            if not (target / "fold_0" / "checkpoint_final.pth").is_file():
                shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
        self.teachers = targets
        if (self.teacher / "fold_0" / "checkpoint_final.pth").is_file():
            return
        run = Run(arm="teacher", shrink=1, seed=0)
        schedule = SETTINGS["teacher"]
        self.train(run, ["--method", "none"], schedule, with_teacher=False)
        source = self.model_folder(run)
        self.call(
            ["-m", "nnunet_kd", "release", "-m", str(source), "-f", "0", "-o", str(self.folder / "teacher")],
            self.folder / "logs" / "release.log",
        )
        released = next((self.folder / "teacher").glob("**/fold_0")).parent
        shutil.copytree(released, self.teacher, dirs_exist_ok=True)

    def model_folder(self, run: Run) -> Path:
        """Return where nnU-Net puts a run."""
        name = STUDENT_FOLDER.format(plans=run.plans, configuration=SETTINGS["configuration"])
        return self.folder / "results" / self.dataset / name

    def train(
        self, run: Run, options: Sequence[str], schedule: Mapping[str, Any], *, with_teacher: bool = True
    ) -> float:
        """Plan and train one run, validation on the test cases included; return the seconds it took."""
        plan = ["-m", "nnunet_kd", "plan", "-d", str(SETTINGS["dataset"]), "-c", SETTINGS["configuration"]]
        plan += ["--shrink", str(run.shrink), "--seed", str(run.seed), "-p", run.plans, "--overwrite"]
        plan += ["--epochs", str(schedule["epochs"]), "--iterations", str(SETTINGS["iterations_per_epoch"])]
        plan += ["--val-iterations", str(SETTINGS["val_iterations_per_epoch"])]
        plan += ["--optimizer", SETTINGS["optimizer"], "--lr", str(schedule["lr"])]
        for teacher in self.teachers[: n_teachers(run.arm)] if with_teacher else ():
            plan += ["--teacher", str(teacher)]
        log = self.folder / "logs" / f"{run.name}.log"
        self.call([*plan, *options], log.with_suffix(".plan.log"))
        if "cached" in options:  # made for the first seed, found by the others; not part of the run's seconds
            cache = [
                "-m",
                "nnunet_kd",
                "cache_teacher",
                "-d",
                str(SETTINGS["dataset"]),
                "-c",
                SETTINGS["configuration"],
            ]
            self.call([*cache, "-p", run.plans, "-f", "0", "-np", "0"], log.with_suffix(".cache.log"))
        start = time.monotonic()
        arguments = [str(SETTINGS["dataset"]), SETTINGS["configuration"], run.plans, str(SETTINGS["threads"])]
        self.call(["-c", _TRAIN, *arguments], log)
        return time.monotonic() - start


def test_scores(summary: Path) -> dict[str, dict[str, float]]:
    """Read Dice per case and structure from nnU-Net's own summary.json."""
    names = {"1": "anterior", "2": "posterior"}
    cases = json.loads(summary.read_text())["metric_per_case"]
    return {
        Path(case["reference_file"]).name.split(".")[0]: {
            names[k]: round(v["Dice"], 6) for k, v in case["metrics"].items()
        }
        for case in cases
    }


def commit() -> str:
    """Return the commit the code stood at."""
    result = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


def record(run: Run, scores: Mapping[str, Any], seconds: float, schedule: Mapping[str, Any]) -> None:
    """Write one finished run."""
    import nnunetv2  # noqa: F401  # its version is recorded
    import torch

    from nnunet_kd.hardware import describe

    RESULTS.mkdir(parents=True, exist_ok=True)
    data = {
        "arm": run.arm, "shrink": run.shrink, "seed": run.seed, "schedule": dict(schedule),
        "options": options_of(run.arm), "seconds": round(seconds),
        "date": datetime.now(timezone.utc).date().isoformat(), "commit": commit(), "hardware": describe(),
        "torch": torch.__version__, "python": platform.python_version(), "dice": scores,
    }  # fmt: skip
    temporary = run.result.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    temporary.replace(run.result)


def predict_teacher(place: Workplace) -> None:
    """Score the teacher on the test cases through stock nnU-Net, mirrored as nnU-Net's validation is."""
    run = Run(arm="teacher", shrink=1, seed=0)
    if run.result.is_file():
        return
    images, output = place.folder / "test_images", place.folder / "teacher_predictions"
    images.mkdir(exist_ok=True)
    for case in place.test_cases():
        name = f"{case}_0000.nii.gz"
        shutil.copyfile(place.folder / "raw" / place.dataset / "imagesTr" / name, images / name)
    start = time.monotonic()
    entry = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as f; f()"
    options = [
        "-i",
        str(images),
        "-o",
        str(output),
        "-m",
        str(place.teacher),
        "-f",
        "0",
        "-device",
        "cpu",
        "-npp",
        "1",
        "-nps",
        "1",
    ]
    place.call(["-c", entry, *options], place.folder / "logs" / "teacher.log", 1)
    seconds = time.monotonic() - start
    entry = "from nnunetv2.evaluation.evaluate_predictions import evaluate_simple_entry_point as f; f()"
    reference = place.folder / "test_labels"
    reference.mkdir(exist_ok=True)
    for case in place.test_cases():
        name = f"{case}.nii.gz"
        shutil.copyfile(place.preprocessed / "gt_segmentations" / name, reference / name)
    place.call(
        ["-c", entry, str(reference), str(output), "-l", "1", "2", "-np", "1"], place.folder / "logs" / "score.log", 1
    )
    record(run, test_scores(output / "summary.json"), seconds, {"given": True})


def run_all(options: argparse.Namespace) -> None:
    """Prepare, then train what has no result yet."""
    place = Workplace(options.work.resolve(), options.data.resolve())
    place.folder.mkdir(parents=True, exist_ok=True)
    place.prepare()
    place.provide_teachers([] if options.train_teachers else options.teachers)
    predict_teacher(place)
    waiting = [run for run in all_runs() if not run.result.is_file() and n_teachers(run.arm) <= len(place.teachers)]
    for number, run in enumerate(waiting, 1):
        print(f"[{number}/{len(waiting)}] {run.name}", flush=True)
        schedule = SETTINGS["students"][str(run.shrink)]
        seconds = place.train(run, options_of(run.arm), schedule)
        scores = test_scores(place.model_folder(run) / "fold_0" / "validation" / "summary.json")
        record(run, scores, seconds, schedule)
        shutil.rmtree(place.model_folder(run))


def main() -> None:
    """Parse and delegate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    run = verbs.add_parser("run", help="train what has no result yet")
    run.add_argument(
        "--data", type=Path, required=True, help="Task04_Hippocampus in the Decathlon layout, with test_cases.txt"
    )
    run.add_argument(
        "--teachers",
        type=Path,
        nargs="+",
        default=[],
        help="nnU-Net model folders of teachers that saw none of the test cases; arms with more teachers are left out",
    )
    run.add_argument("--train-teachers", action="store_true", help="train the teacher here")
    run.add_argument("--work", type=Path, default=HERE / "work" / "hippocampus", help="scratch folder")
    run.set_defaults(function=run_all)
    report = verbs.add_parser("report", help="write the table and the plot into docs/")
    report.set_defaults(function=write_report)
    options = parser.parse_args()
    options.function(options)


def write_report(options: argparse.Namespace) -> None:  # noqa: ARG001
    """Write docs/benchmarks.md's table and picture from the committed results."""
    from hippocampus_report import write

    write()


if __name__ == "__main__":
    main()
