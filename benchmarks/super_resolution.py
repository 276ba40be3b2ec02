"""Super-resolution of one subject's brain: zero-filled, teacher, student, student distilled, with a random teacher.

One T1 volume trains, another one is tested, at the factor of KD-MRI (4 along each axis of a slice). One subject is no
sample: differences are described slice by slice, without interval. K-space is made of magnitude images.

    python benchmarks/super_resolution.py run --train NIFTI --test NIFTI
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


def runs() -> list[Run]:
    """Return all trainings, the teacher of a seed before its students."""
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


def convert(study: ReconStudy, volumes: Mapping[str, Path]) -> None:
    """Cut and convert once; everybody trains on the one volume and is tested on the other."""
    source = study.place.folder / "source"
    source.mkdir(exist_ok=True)
    for part, file in volumes.items():
        cut(file, source / f"{part}.nii.gz", tuple(SETTINGS["slices"][part]))
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
    study = ReconStudy(place=place, settings=SETTINGS, name="Brain", fold="all")
    convert(study, volumes)
    todo = runs()
    for number, run in enumerate(todo, 1):
        path = RESULTS / f"{run.name}.json"
        if path.is_file() and (study.is_trained(run) or run.arm != TEACHER):
            continue
        print(f"[{number}/{len(todo)}] {run.name}", flush=True)
        seconds = study.train(run)
        study.keep(run, path, slice_scores(study, study.predict(study.model_folder(run), run.name)), seconds)
    zero_filled = Run(arm=ZERO_FILLED, seed=0)
    path = RESULTS / f"{zero_filled.name}.json"
    if not path.is_file():
        model = study.model_folder(Run(arm=TEACHER, seed=0))
        found = slice_scores(study, study.predict(model, zero_filled.name, ["--zero_filled"]))
        study.keep(zero_filled, path, found, 0)


def load() -> dict[str, list[Mapping[str, Any]]]:
    """Return the finished runs by arm, zero-filling first, seeds in order."""
    everything = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    found = {arm: [run for run in everything if run["arm"] == arm] for arm in (ZERO_FILLED, *SETTINGS["arms"])}
    return {arm: sorted(own, key=lambda run: int(run["seed"])) for arm, own in found.items() if own}


def main() -> None:
    """Parse and delegate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    verb = verbs.add_parser("run", help="train what has no result yet")
    verb.add_argument("--train", type=Path, required=True, help="NIfTI volume to train on")
    verb.add_argument("--test", type=Path, required=True, help="NIfTI volume of another subject")
    verb.add_argument("--work", type=Path, default=HERE / "work" / "super_resolution", help="scratch folder")
    verbs.add_parser("report", help="write the table and the plot into docs/")
    options = parser.parse_args()
    if options.verb == "run":
        volumes = {"train": options.train.resolve(), TEST: options.test.resolve()}
        run_all(Workplace(options.work.resolve(), SETTINGS["threads"]), volumes)
        return
    from super_resolution_report import write

    write(load(), SETTINGS)


if __name__ == "__main__":
    main()
