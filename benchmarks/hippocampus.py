"""Distillation on real data: Decathlon hippocampus, small students against their controls.

Every arm is trained by KDTrainer with the same schedule, the same seeds and so the same batches; what
differs is the teacher. Each finished run is one JSON in ``results/hippocampus/``; runs that have one are
not repeated, so the script can be stopped and started again.

    python benchmarks/hippocampus.py run --data Task04_Hippocampus --teachers FOLDER [FOLDER FOLDER]
    python benchmarks/hippocampus.py report
"""

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import HERE, Training, Workplace, convert_hippocampus, read_scores, record, settings_of, test_cases

SETTINGS, RESULTS = settings_of("hippocampus")
CONFIGURATION = SETTINGS["configuration"]
TEACHER = f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"


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


def training(run: Run, dataset: str, teachers: Sequence[Path]) -> Training:
    """Return what a run trains."""
    schedule = SETTINGS["teacher"] if run.arm == "teacher" else SETTINGS["students"][str(run.shrink)]
    budget = ["--epochs", str(schedule["epochs"]), "--iterations", str(SETTINGS["iterations_per_epoch"])]
    budget += ["--val-iterations", str(SETTINGS["val_iterations_per_epoch"])]
    budget += ["--optimizer", SETTINGS["optimizer"], "--lr", str(schedule["lr"])]
    method = options_of(run.arm) if run.arm != "teacher" else ["--method", "none"]
    return Training(
        name=run.name,
        dataset=dataset,
        configuration=CONFIGURATION,
        options=["--shrink", str(run.shrink), "--seed", str(run.seed), *budget, *method],
        teachers=teachers[: n_teachers(run.arm)],
    )


def write_result(run: Run, scores: Mapping[str, Any], seconds: float, schedule: Mapping[str, Any]) -> None:
    """Write one finished run."""
    facts = {"arm": run.arm, "shrink": run.shrink, "seed": run.seed, "schedule": dict(schedule)}
    record(run.result, {**facts, "options": options_of(run.arm)}, scores, seconds)


def provide_teachers(place: Workplace, dataset: str, given: Sequence[Path]) -> list[Path]:
    """Copy given teachers, or train one by the same recipe as the students; return their folders."""
    first = place.results / dataset / TEACHER
    targets = [first, *(place.folder / "teachers" / str(i) / TEACHER for i in range(1, len(given)))]
    for source, target in zip(given, targets, strict=False):
        if not (target / "fold_0" / "checkpoint_final.pth").is_file():
            shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    if not (first / "fold_0" / "checkpoint_final.pth").is_file():
        own = training(Run(arm="teacher", shrink=1, seed=0), dataset, [])
        place.train(own)
        output = place.folder / "teacher"
        place.call(
            ["-m", "nnunet_kd", "release", "-m", str(place.model_folder(own)), "-f", "0", "-o", str(output)], "release"
        )
        shutil.copytree(next(output.glob("**/fold_0")).parent, first, dirs_exist_ok=True)
    return targets


def predict_teacher(place: Workplace, dataset: str, teacher: Path, cases: Sequence[str]) -> None:
    """Score the teacher on the test cases through stock nnU-Net, mirrored as nnU-Net's validation is."""
    run = Run(arm="teacher", shrink=1, seed=0)
    if run.result.is_file():
        return
    images, reference, output = (place.folder / name for name in ("test_images", "test_labels", "teacher_predictions"))
    for case in cases:
        for folder, source, name in (
            (images, place.raw / dataset / "imagesTr", f"{case}_0000.nii.gz"),
            (reference, place.raw / dataset / "labelsTr", f"{case}.nii.gz"),
        ):
            folder.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    start = time.monotonic()
    entry = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as f; f()"
    how = ["-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]
    place.call(["-c", entry, "-i", str(images), "-o", str(output), "-m", str(teacher), *how], "teacher", 1)
    seconds = time.monotonic() - start
    entry = "from nnunetv2.evaluation.evaluate_predictions import evaluate_simple_entry_point as f; f()"
    place.call(["-c", entry, str(reference), str(output), "-l", "1", "2", "-np", "1"], "score", 1)
    write_result(run, read_scores(output / "summary.json"), seconds, {"given": True})


def run_all(options: argparse.Namespace) -> None:
    """Prepare, then train what has no result yet."""
    data = options.data.resolve()
    place = Workplace(options.work.resolve(), SETTINGS["threads"])
    dataset = convert_hippocampus(place, data)
    place.preprocess(dataset, CONFIGURATION, batch_size=SETTINGS["batch_size"])
    teachers = provide_teachers(place, dataset, [] if options.train_teachers else options.teachers)
    predict_teacher(place, dataset, teachers[0], test_cases(data))
    waiting = [run for run in all_runs() if not run.result.is_file() and n_teachers(run.arm) <= len(teachers)]
    for number, run in enumerate(waiting, 1):
        print(f"[{number}/{len(waiting)}] {run.name}", flush=True)
        what = training(run, dataset, teachers)
        seconds = place.train(what)
        write_result(run, place.scores(what), seconds, SETTINGS["students"][str(run.shrink)])
        place.remove(what)


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
