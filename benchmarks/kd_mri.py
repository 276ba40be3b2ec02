"""KD-MRI on ACDC: zero-filled, teacher, student, student distilled, student with a random teacher, equal budgets.

Every arm is planned, trained and predicted by the commands that users type. K-space is made of magnitude images, so
that the numbers say nothing about measured data; they stand beside the published ones, which are made in that way too.

    python benchmarks/kd_mri.py run --data ACDC_H5_FOLDER
    python benchmarks/kd_mri.py report
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import HERE, Workplace, file_name, record, settings_of

SETTINGS, RESULTS = settings_of("kd_mri")
DATASET = f"Dataset{SETTINGS['dataset']}_ACDC"
CONFIGURATION = "2d"
FOLD = 0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained arm.

    Attributes:
        arm: Its name.
        acceleration: Nominal, as text.
        seed: Of initialisation, order and masks.
    """

    arm: str
    acceleration: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{file_name(self.arm)}_{self.acceleration}x_seed{self.seed}"

    @property
    def plans(self) -> str:
        """Name of its plans."""
        return "nnUNetRecon" + "".join(word.capitalize() for word in self.name.replace("_", "-").split("-")) + "Plans"


def runs() -> list[Run]:
    """Return all trainings, the teacher of a seed before its students."""
    return [
        Run(arm=arm, acceleration=acceleration, seed=seed)
        for acceleration, seeds in SETTINGS["seeds"].items()
        for seed in seeds
        for arm in SETTINGS["arms"]
    ]


def recon(place: Workplace, log: str, *words: object) -> None:
    """Run one of our sub-verbs."""
    place.call(["-m", "nnunet_kd", "recon", *map(str, words)], log)


def convert(place: Workplace, data: Path) -> None:
    """Convert and preprocess once; fold 0 validates on the last training patients, nobody trains on the test ones."""
    if (place.raw / DATASET).is_dir():
        return
    patients = sorted({file.name.split("_")[0] for file in data.glob("*.h5")})
    test = patients[-SETTINGS["n_test_patients"] :]
    training = patients[: -SETTINGS["n_test_patients"]]
    validation = training[-SETTINGS["n_validation_patients"] :]
    folds = place.folder / "splits.json"
    kept = [patient for patient in training if patient not in validation]
    folds.write_text(json.dumps([{"train": kept, "val": validation}]))
    recon(
        place, "convert", "convert", "magnitude", "-i", data, "-d", SETTINGS["dataset"], "-n", "ACDC", "--matrix",
        *SETTINGS["matrix"], "--sampling", "variable_density:acceleration=4,axis=rows", "--splits", folds, "-np", 1,
        "--test-patients", *test,
    )  # fmt: skip
    recon(place, "fingerprint", "extract_fingerprint", "-d", SETTINGS["dataset"], "-np", 1)


def model_folder(place: Workplace, run: Run) -> Path:
    """Return where a training is."""
    trainer = SETTINGS["arms"][run.arm]["trainer"]
    return place.results / DATASET / f"{trainer}__{run.plans}__{CONFIGURATION}"


def train(place: Workplace, run: Run) -> float:
    """Plan, preprocess if nobody has, and train; return the seconds of the training."""
    arm = SETTINGS["arms"][run.arm]
    teacher = Run(arm="teacher", acceleration=run.acceleration, seed=run.seed)
    # a student sees its teacher's data
    data = ["--teacher", model_folder(place, teacher)] if arm.get("taught") else ["--acceleration", run.acceleration]
    where = ["-d", SETTINGS["dataset"], "-p", run.plans]
    words = [*data, *arm["options"], *SETTINGS["budget"], "--seed", run.seed]
    recon(place, f"{run.name}.plan", "plan", *where, "--overwrite", *words)
    recon(place, f"{run.name}.preprocess", "preprocess", *where, "-c", CONFIGURATION, "-np", 1)
    start = time.monotonic()
    options = ["-tr", arm["trainer"], "-p", run.plans, "-device", "cpu", "--c"]
    recon(place, run.name, "train", SETTINGS["dataset"], CONFIGURATION, FOLD, *options)
    return time.monotonic() - start


def scores(place: Workplace, model: Path, name: str, options: Sequence[object] = ()) -> dict[str, dict[str, float]]:
    """Predict the test cases and return PSNR and SSIM of every volume."""
    reference, output = place.raw / DATASET / "kspaceTs", place.folder / "predictions" / name
    recon(place, f"{name}.predict", "predict", "-i", reference, "-o", output, "-m", model, "--overwrite", *options)
    recon(place, f"{name}.evaluate", "evaluate", "-i", output, "-r", reference, "-np", 0)
    summary = json.loads((output / "summary.json").read_text())
    return {
        Path(case["reference_file"]).stem: {key: round(value, 6) for key, value in case["metrics"]["volume"].items()}
        for case in summary["metric_per_case"]
    }


def parameters(model: Path) -> int:
    """Return the number of parameters of a model folder's network."""
    from nnunet_kd.recon.planning.plans import build_network
    from nnunet_kd.recon.training.models import open_recon_model

    network = build_network(open_recon_model(model).configuration)
    return sum(parameter.numel() for parameter in network.parameters())


def run_all(place: Workplace, data: Path) -> None:
    """Train and score what has no result yet."""
    convert(place, data)
    todo = runs()
    for number, run in enumerate(todo, 1):
        path, model = RESULTS / f"{run.name}.json", model_folder(place, run)
        trained = (model / f"fold_{FOLD}" / "checkpoint_final.pth").is_file()
        if path.is_file() and (trained or run.arm != "teacher"):
            continue
        print(f"[{number}/{len(todo)}] {run.name}", flush=True)
        seconds = train(place, run)
        facts = {"arm": run.arm, "acceleration": run.acceleration, "seed": run.seed, "parameters": parameters(model)}
        facts["options"] = [*SETTINGS["arms"][run.arm]["options"], *SETTINGS["budget"]]
        record(path, facts, scores(place, model, run.name), seconds, key="scores")
    for acceleration in SETTINGS["seeds"]:
        path = RESULTS / f"zero-filled_{acceleration}x_seed0.json"
        if not path.is_file():
            model = model_folder(place, Run(arm="teacher", acceleration=acceleration, seed=0))
            found = scores(place, model, path.stem, ["--zero_filled"])
            record(path, {"arm": "zero-filled", "acceleration": acceleration, "seed": 0}, found, 0, key="scores")


def load() -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return the finished runs by acceleration and arm, zero-filling first."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    everything = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    for acceleration in SETTINGS["seeds"]:
        for arm in ("zero-filled", *SETTINGS["arms"]):
            own = [run for run in everything if (run["arm"], run["acceleration"]) == (arm, acceleration)]
            if own:
                found.setdefault(acceleration, {})[arm] = own
    return found


def main() -> None:
    """Parse and delegate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verb = verbs.add_parser("run", help="train what has no result yet")
    verb.add_argument("--data", type=Path, required=True, help="folder of patientXXX_frameYY.h5 with the key image")
    verb.add_argument("--work", type=Path, default=HERE / "work" / "kd_mri", help="scratch folder")
    verbs.add_parser("report", help="write the table and the plot into docs/")
    options = parser.parse_args()
    if options.verb == "run":
        run_all(Workplace(options.work.resolve(), SETTINGS["threads"]), options.data.resolve())
        return
    from kd_mri_report import write

    write(load(), SETTINGS)


if __name__ == "__main__":
    main()
