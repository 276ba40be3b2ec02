"""KD-MRI on ACDC: zero-filled, teacher, student, student distilled, student with a random teacher, equal budgets.

Every arm is planned, trained and predicted by the commands that users type. K-space is made of magnitude images, so
that the numbers say nothing about measured data; they stand beside the published ones, which are made in that way too.

    python benchmarks/kd_mri.py run --data ACDC_H5_FOLDER
    python benchmarks/kd_mri.py report
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_study import TEACHER, ZERO_FILLED, ReconStudy, Run
from study import HERE, Workplace, settings_of

SETTINGS, RESULTS = settings_of("kd_mri")


def runs() -> list[Run]:
    """Return all trainings, the teacher of a seed before its students."""
    return [
        Run(arm=arm, acceleration=acceleration, seed=seed)
        for acceleration, seeds in SETTINGS["seeds"].items()
        for seed in seeds
        for arm in SETTINGS["arms"]
    ]


def convert(study: ReconStudy, data: Path) -> None:
    """Convert once; fold 0 validates on the last training patients, nobody trains on the test ones."""
    patients = sorted({file.name.split("_")[0] for file in data.glob("*.h5")})
    test = patients[-SETTINGS["n_test_patients"] :]
    training = patients[: -SETTINGS["n_test_patients"]]
    validation = training[-SETTINGS["n_validation_patients"] :]
    folds = study.place.folder / "splits.json"
    kept = [patient for patient in training if patient not in validation]
    folds.write_text(json.dumps([{"train": kept, "val": validation}]))
    study.convert(
        "magnitude", "-i", data, "--matrix", *SETTINGS["matrix"], "--sampling",
        "variable_density:acceleration=4,axis=rows", "--splits", folds, "--test-patients", *test,
    )  # fmt: skip


def run_all(place: Workplace, data: Path) -> None:
    """Train and score what has no result yet."""
    study = ReconStudy(place=place, settings=SETTINGS, name="ACDC")
    convert(study, data)
    todo = runs()
    for number, run in enumerate(todo, 1):
        path = RESULTS / f"{run.name}.json"
        if path.is_file() and (study.is_trained(run) or run.arm != TEACHER):
            continue
        print(f"[{number}/{len(todo)}] {run.name}", flush=True)
        seconds = study.train(run, ["--acceleration", run.acceleration])
        found = study.scores(study.predict(study.model_folder(run), run.name))
        study.keep(run, path, found, seconds, acceleration=run.acceleration)
    for acceleration in SETTINGS["seeds"]:
        run = Run(arm=ZERO_FILLED, acceleration=acceleration, seed=0)
        path = RESULTS / f"{run.name}.json"
        if not path.is_file():
            model = study.model_folder(Run(arm=TEACHER, acceleration=acceleration, seed=0))
            found = study.scores(study.predict(model, run.name, ["--zero_filled"]))
            study.keep(run, path, found, 0, acceleration=acceleration)


def load() -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return the finished runs by acceleration and arm, zero-filling first."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    everything = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    for acceleration in SETTINGS["seeds"]:
        for arm in (ZERO_FILLED, *SETTINGS["arms"]):
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
