"""Super-resolution of one subject's brain: zero-filled, teacher, student, student distilled, with a random teacher.

One T1 volume trains, the other one is tested, and the other way round, at the factor of KD-MRI (4 along each axis of a
slice). One subject is no sample: differences are described slice by slice, without interval. K-space is made of
magnitude images.

    python benchmarks/super_resolution.py run --head NIFTI --brain NIFTI
    python benchmarks/super_resolution.py report
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_study import TEACHER, ZERO_FILLED, ReconStudy, Run
from study import HERE, Workplace, settings_of

SETTINGS, RESULTS = settings_of("super_resolution")
TEST = "test"
ZERO = Run(arm=ZERO_FILLED, seed=0)


def runs() -> list[Run]:
    """Return the trainings of one direction, the teacher of a seed before its students."""
    return [Run(arm=arm, seed=seed) for seed in SETTINGS["seeds"] for arm in SETTINGS["arms"]]


def cut(source: Path, target: Path, slices: tuple[int, int, int]) -> None:
    """Write some axial slices of a volume whose axes point right, forwards and up.

    Args:
        source: NIfTI.
        target: NIfTI.
        slices: First, last (left out) and step, from the feet.
    """
    import nibabel
    import numpy as np

    volume = nibabel.as_closest_canonical(nibabel.load(source))
    chosen = volume.slicer[:, :, slice(*slices)]
    nibabel.save(nibabel.Nifti1Image(np.asarray(chosen.dataobj, np.float32), chosen.affine), target)


def convert(study: ReconStudy, volumes: Mapping[str, Path], trained_on: str) -> None:
    """Cut and convert once; everybody trains on the one volume and is tested on the other."""
    source = study.place.folder / "source" / trained_on
    source.mkdir(parents=True, exist_ok=True)
    for name, file in volumes.items():
        part = "train" if name == trained_on else TEST
        cut(file, source / f"{part}.nii.gz", tuple(SETTINGS["slices"][name]))
    study.convert("magnitude", "-i", source, "--truncation", *SETTINGS["factor"], "--test-patients", TEST)


def slice_scores(study: ReconStudy, predictions: Path) -> dict[str, Any]:
    """Return the scores of the volume, and PSNR of every slice with the volume's largest intensity as data range."""
    import numpy as np

    from nnunet_kd.recon.evaluation.volumes import read_prediction, read_target

    whole = study.scores(predictions)[TEST]
    target = read_target(study.reference / f"{TEST}.h5").astype(np.float64)
    image = read_prediction(predictions / f"{TEST}.nii.gz")
    errors = ((target - image) ** 2).mean(axis=(1, 2))
    each = 10 * np.log10(target.max() ** 2 / errors)
    return {"volume": whole, "PSNR of slices": [round(float(value), 4) for value in each]}


def run_all(place: Workplace, volumes: Mapping[str, Path]) -> None:
    """Train and score what has no result yet."""
    # fold all: nothing is kept back to watch, and the last checkpoint counts
    studies = {
        name: ReconStudy(place=place, settings={**SETTINGS, "dataset": number}, name="Brain", fold="all")
        for name, number in SETTINGS["directions"].items()
    }
    for trained_on, study in studies.items():
        convert(study, volumes, trained_on)
    for run in runs():
        for trained_on, study in studies.items():
            run_one(study, run, trained_on)
            if run.arm == TEACHER:
                run_one(study, ZERO, trained_on)


def run_one(study: ReconStudy, run: Run, trained_on: str) -> None:
    """Train and score an arm, unless it has a result."""
    name = f"{trained_on}_{run.name}"
    path = RESULTS / f"{name}.json"
    if path.is_file() and (run.arm != TEACHER or study.is_trained(run)):
        return
    print(name, flush=True)
    seconds, model = 0.0, study.model_folder(Run(arm=TEACHER, seed=0) if run == ZERO else run)
    if run != ZERO:
        seconds = study.train(run)
    predictions = study.predict(model, name, ["--zero_filled"] if run == ZERO else [])
    study.keep(run, path, slice_scores(study, predictions), seconds, trained_on=trained_on)


def load() -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return the finished runs by what was trained on and by arm, zero-filling first, seeds in order."""
    everything = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for trained_on in SETTINGS["directions"]:
        for arm in (ZERO_FILLED, *SETTINGS["arms"]):
            own = [run for run in everything if (run["trained_on"], run["arm"]) == (trained_on, arm)]
            if own:
                found.setdefault(trained_on, {})[arm] = sorted(own, key=lambda run: int(run["seed"]))
    return found


def main() -> None:
    """Parse and delegate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verb = verbs.add_parser("run", help="train what has no result yet")
    verb.add_argument("--head", type=Path, required=True, help="T1 volume of a whole head, NIfTI")
    verb.add_argument("--brain", type=Path, required=True, help="skull-stripped T1 volume of another subject, NIfTI")
    verb.add_argument("--work", type=Path, default=HERE / "work" / "super_resolution", help="scratch folder")
    verbs.add_parser("report", help="write the table and the plot into docs/")
    options = parser.parse_args()
    if options.verb == "run":
        volumes = {"head": options.head.resolve(), "brain": options.brain.resolve()}
        run_all(Workplace(options.work.resolve(), SETTINGS["threads"]), volumes)
        return
    from super_resolution_report import write

    write(load(), SETTINGS)


if __name__ == "__main__":
    main()
