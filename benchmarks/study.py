"""What the benchmarks on real data share: nnU-Net's folders, trainings of equal budget, one JSON per finished run."""

import argparse
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STRUCTURES = {"1": "anterior", "2": "posterior"}
_TRAIN = (
    "import sys, torch; from nnunetv2.run.run_training import run_training; torch.set_num_threads(int(sys.argv[5]));"
    "run_training(sys.argv[1], sys.argv[2], int(sys.argv[3]), 'KDTrainer', sys.argv[4], device=torch.device('cpu'), "
    "continue_training=True)"
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of a benchmark.

    Attributes:
        name: Of its files, unique within the benchmark.
        dataset: ``DatasetXXX_Name``.
        configuration: nnU-Net configuration.
        fold: Fold of the split.
        options: What ``nnunet_kd plan`` is told, the budget included.
        teachers: Model folders.
    """

    name: str
    dataset: str
    configuration: str
    fold: int = 0
    options: Sequence[str] = field(default_factory=tuple)
    teachers: Sequence[Path] = field(default_factory=tuple)

    @property
    def plans(self) -> str:
        """Name of its plans."""
        words = "".join(c if c.isalnum() else " " for c in self.name).split()
        return "nnUNetKDBench" + "".join(word.capitalize() for word in words) + "Plans"


class Workplace:
    """nnU-Net's folders for a benchmark, and the commands that run in them.

    Args:
        folder: Scratch folder.
        threads: Threads of every training.
        compiled: Whether networks are compiled. Which is faster on a CPU depends on the network.
    """

    def __init__(self, folder: Path, threads: int, *, compiled: bool = True) -> None:
        self.folder, self.threads, self.compiled = folder, threads, compiled
        self.raw, self.preprocessed, self.results = (folder / name for name in ("raw", "preprocessed", "results"))
        for path in (self.raw, self.preprocessed, self.results):
            path.mkdir(parents=True, exist_ok=True)

    def environment(self, augmentation_workers: int = 0) -> dict[str, str]:
        """0 augmentation workers make a seed exact: every arm then sees the same batches."""
        folders = {"nnUNet_raw": self.raw, "nnUNet_preprocessed": self.preprocessed, "nnUNet_results": self.results}
        return {
            **os.environ,
            **{name: str(path) for name, path in folders.items()},
            "nnUNet_n_proc_DA": str(augmentation_workers),
            "nnUNet_def_n_proc": str(self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            "nnUNet_compile": "true" if self.compiled else "false",
        }

    def call(self, arguments: Sequence[str], log: str, augmentation_workers: int = 0) -> None:
        """Run a child to its end; its output goes to a file that is named when it fails."""
        path = self.folder / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            status = subprocess.run(
                [sys.executable, *arguments],
                env=self.environment(augmentation_workers),
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=self.folder,
            ).returncode
        if status:
            raise SystemExit(f"status {status}; see {path}")

    def preprocess(self, dataset: str, configuration: str, **changes: int | list[int]) -> None:
        """Plan and preprocess with nnU-Net, once, and change entries of the configuration, as ``batch_size``."""
        plans_file = self.preprocessed / dataset / "nnUNetPlans.json"
        marker = self.preprocessed / dataset / f"{configuration}.done"
        if marker.is_file():
            return
        module = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
        entry = f"from {module} import plan_and_preprocess_entry as f; f()"
        number = dataset[7:10]
        options = ["-d", number, "-c", configuration, "-np", "2", "-npfp", "2"]
        self.call(["-c", entry, *options], f"preprocess_{dataset}_{configuration}", 1)
        plans = json.loads(plans_file.read_text())
        plans["configurations"][configuration].update(changes)
        plans_file.write_text(json.dumps(plans, indent=4))
        marker.touch()

    def _equalise(self, training: Training) -> None:
        """Give a student the batches of the study: its plans start from its teacher's, who may have seen others."""
        path = self.preprocessed / training.dataset / f"{training.plans}.json"
        plans = json.loads(path.read_text())
        base = json.loads((path.parent / "nnUNetPlans.json").read_text())
        own, common = (each["configurations"][training.configuration] for each in (plans, base))
        own["batch_size"] = common["batch_size"]
        if own["patch_size"] != common["patch_size"]:
            raise SystemExit(f"{training.name}: patch {own['patch_size']}, the other arms have {common['patch_size']}")
        path.write_text(json.dumps(plans, indent=4))

    def model_folder(self, training: Training) -> Path:
        """Return where nnU-Net puts a training."""
        return self.results / training.dataset / f"KDTrainer__{training.plans}__{training.configuration}"

    def train(self, training: Training) -> float:
        """Plan and train, validation on the test cases included; return the seconds of the training."""
        where = ["-d", training.dataset[7:10], "-c", training.configuration, "-p", training.plans]
        teachers = [word for teacher in training.teachers for word in ("--teacher", str(teacher))]
        plan = ["-m", "nnunet_kd", "plan", *where, "--overwrite", *teachers, *training.options]
        self.call(plan, f"{training.name}.plan")
        self._equalise(training)
        if "cached" in training.options:  # made for the first seed, found by the others; not part of the run's seconds
            self.call(
                ["-m", "nnunet_kd", "cache_teacher", *where, "-f", str(training.fold), "-np", "0"],
                f"{training.name}.cache",
            )
        start = time.monotonic()
        arguments = [training.dataset[7:10], training.configuration, str(training.fold), training.plans]
        self.call(["-c", _TRAIN, *arguments, str(self.threads)], training.name)
        return time.monotonic() - start

    def scores(self, training: Training) -> dict[str, dict[str, float]]:
        """Return Dice per case and structure of a finished training, from nnU-Net's own summary.json."""
        fold = self.model_folder(training) / f"fold_{training.fold}"
        return read_scores(fold / "validation" / "summary.json")

    def parameters(self, training: Training) -> int:
        """Return the number of parameters of a trained network."""
        from nnunet_kd.networks.build import build_network
        from nnunet_kd.planning.model_folder import open_model_folder

        with redirect_stdout(io.StringIO()):  # nnU-Net's look-up prints where it searches
            network = build_network(open_model_folder(str(self.model_folder(training))), deep_supervision=False)
        return sum(parameter.numel() for parameter in network.parameters())

    def remove(self, training: Training) -> None:
        """Remove a training's folder; what counts is in its JSON."""
        shutil.rmtree(self.model_folder(training))


def convert_hippocampus(place: Workplace, data: Path) -> str:
    """Convert the Decathlon's task 4 once; fold 0 validates on exactly the test cases. Return the data set's name."""
    dataset = "Dataset004_Hippocampus"
    splits = place.preprocessed / dataset / "splits_final.json"
    if not splits.is_file():
        place.call(["-m", "nnunet_kd", "convert", "decathlon", str(data), "-d", "4", "--overwrite"], "convert", 1)
        cases = sorted(path.name.split(".")[0] for path in (place.raw / dataset / "labelsTr").glob("*.nii.gz"))
        test = test_cases(data)
        splits.parent.mkdir(parents=True, exist_ok=True)
        splits.write_text(json.dumps([{"train": [case for case in cases if case not in test], "val": test}]))
    return dataset


def test_cases(data: Path) -> list[str]:
    """Return the cases no arm trains on."""
    return (data / "test_cases.txt").read_text().split()


def read_scores(summary: Path) -> dict[str, dict[str, float]]:
    """Read Dice per case and structure from nnU-Net's summary.json."""
    cases = json.loads(summary.read_text())["metric_per_case"]
    return {
        Path(case["reference_file"]).name.split(".")[0]: {
            STRUCTURES[k]: round(v["Dice"], 6) for k, v in case["metrics"].items()
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


def record(
    path: Path, facts: Mapping[str, Any], scores: Mapping[str, Any], seconds: float, *, key: str = "dice"
) -> None:
    """Write one finished run: what it was, on what, and its scores under ``key``."""
    import nnunetv2  # noqa: F401  # imports are part of what a version means
    import torch

    from nnunet_kd.hardware import describe

    data = {
        **facts,
        "seconds": round(seconds),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "hardware": describe(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        key: scores,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1) + "\n")
    temporary.replace(path)


def trainings(settings: Mapping[str, Any], dataset: str, place: Workplace, given: Sequence[Path]) -> list[Training]:
    """Return a benchmark's trainings seed by seed, so that an unfinished one is balanced over its arms.

    Args:
        settings: ``configuration``, ``budget`` (options) and ``arms``: per name ``options``, ``seeds``, and if it has
            teachers ``teachers``: ``given``, or the name of an arm whose seed 0 teaches. ``fold`` if it is not 0,
            ``against`` if it is compared with another arm than ``control``.
        dataset: ``DatasetXXX_Name``.
        place: Where it runs.
        given: Model folders for ``given``.
    """
    made: dict[tuple[str, int], Training] = {}
    arms = settings["arms"]
    for seed in sorted({seed for arm in arms.values() for seed in arm["seeds"]}):
        for name, arm in arms.items():
            if seed in arm["seeds"]:
                source = arm.get("teachers", "")
                teachers = [place.model_folder(made[source, 0])] if source in arms else []
                made[name, seed] = Training(
                    name=f"{file_name(name)}_seed{seed}",
                    dataset=dataset,
                    configuration=settings["configuration"],
                    fold=arm.get("fold", 0),
                    options=[*settings["budget"], *arm["options"], "--seed", str(seed)],
                    teachers=list(given) if source == "given" else teachers,
                )
    return list(made.values())


def file_name(arm: str) -> str:
    """Return an arm's name as part of a file's.

    Example:
        >>> file_name("Distill DSM, alpha 1/2")
        'distill-dsm-alpha-1-2'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in arm.lower()).split())


def run_study(
    settings: Mapping[str, Any],
    results: Path,
    place: Workplace,
    dataset: str,
    given: Sequence[Path] = (),
    *,
    keep: bool = False,
) -> None:
    """Train what has no result yet. The folders of arms that teach others are kept, or all with ``keep``."""
    arms = settings["arms"]
    teaching = {arm.get("teachers", "") for arm in arms.values()} | (set(arms) if keep else set())
    by_file = {f"{file_name(name)}_seed{seed}": (name, seed) for name in arms for seed in arms[name]["seeds"]}
    todo = trainings(settings, dataset, place, given)
    for number, training in enumerate(todo, 1):
        arm, seed = by_file[training.name]
        path = results / f"{training.name}.json"
        trained = (place.model_folder(training) / f"fold_{training.fold}" / "checkpoint_final.pth").is_file()
        if path.is_file() and (trained or arm not in teaching):
            continue
        print(f"[{number}/{len(todo)}] {training.name}", flush=True)
        seconds = place.train(training)
        facts = {"arm": arm, "seed": seed, "options": list(training.options), "parameters": place.parameters(training)}
        record(path, facts, place.scores(training), seconds)
        if arm not in teaching:
            place.remove(training)


def settings_of(name: str) -> tuple[dict[str, Any], Path]:
    """Return a benchmark's settings and the folder of its results."""
    settings: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return settings, HERE / "results" / name


def main(name: str, description: str, run: Callable[[Workplace, argparse.Namespace], None]) -> None:
    """Parse and delegate: ``run`` continues the benchmark, ``report`` writes its table and picture into docs/.

    Args:
        name: Of the benchmark.
        description: For ``--help``.
        run: Does what has no result yet.
    """
    settings, results = settings_of(name)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verb = verbs.add_parser("run", help="train what has no result yet")
    verb.add_argument("--data", type=Path, required=True, help="Task04_Hippocampus, with test_cases.txt")
    verb.add_argument("--teacher", type=Path, help="nnU-Net model folder that saw none of the test cases")
    verb.add_argument("--work", type=Path, default=HERE / "work" / name, help="scratch folder")
    verbs.add_parser("report", help="write the table and the plot into docs/")
    options = parser.parse_args()
    if options.verb == "run":
        options.data = options.data.resolve()
        run(Workplace(options.work.resolve(), settings["threads"], compiled=settings["compile"]), options)
        return
    from study_report import load, write

    write(name, load(results, settings["arms"]), settings)
