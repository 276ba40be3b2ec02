"""Reconstruction at accelerations of 4 to 32: unrolled baseline, thin one distilled, two generative extensions.

One model per arm for all accelerations. Slices of hearts (ACDC) and heads are given a smooth simulated phase, so that
their k-space is not symmetric; nothing here says anything about measured data. TextureNet starts from the baseline of
its seed and leaves it as it is, so that all it changes is texture. Every arm is planned, trained and predicted by the
commands that users type, and scored on masks that no arm has seen.

    python benchmarks/extreme_acceleration.py run --hearts ACDC_H5_FOLDER --heads TRAINING_NIFTI TEST_NIFTI
    python benchmarks/extreme_acceleration.py report
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon_study import ZERO_FILLED, ReconStudy, Run
from study import HERE, Workplace, settings_of
from super_resolution import cut

SETTINGS, RESULTS = settings_of("extreme_acceleration")
BASELINE = "baseline"


def runs() -> list[Run]:
    """Return all trainings: those that others need first, then other seeds, then ablations."""
    arms = SETTINGS["arms"]
    found = [Run(arm=arm, seed=seed) for arm, facts in arms.items() for seed in facts["seeds"]]
    return sorted(found, key=lambda run: (bool(arms[run.arm].get("ablation")), run.seed))


def convert(study: ReconStudy, hearts: Path, heads: tuple[Path, Path]) -> None:
    """Convert once: patients of the hearts, and one head each for training and test."""
    source = study.place.folder / "source"
    source.mkdir(exist_ok=True)
    patients = sorted({file.name.split("_")[0] for file in hearts.glob("*.h5")})
    test = patients[-SETTINGS["n_test_patients"] :]
    training = patients[: SETTINGS["n_train_patients"] + 1]  # one volume of the last is watched
    for patient in (*training, *test):
        for file in hearts.glob(f"{patient}_*.h5"):
            (source / file.name).unlink(missing_ok=True)
            (source / file.name).symlink_to(file)
    for part, file in zip(("train", "test"), heads, strict=True):
        cut(file, source / f"head{part}.nii.gz", tuple(SETTINGS["brain_slices"][part]))
    kept, watched = [*training[:-1], "headtrain"], sorted(hearts.glob(f"{training[-1]}_*.h5"))[0].stem
    folds = study.place.folder / "splits.json"
    folds.write_text(json.dumps([{"train": kept, "val": [watched]}]))
    study.convert(
        "magnitude", "-i", source, "--matrix", *SETTINGS["matrix"], "--phase", SETTINGS["phase"],
        "--splits", folds, "--test-patients", *test, "headtest",
    )  # fmt: skip


def masks() -> list[object]:
    """Return the options of ``plan`` that draw one of the accelerations for every sample."""
    shares = SETTINGS["accelerations"]
    return ["--mask", "random", "--acceleration", *shares, "--center-fraction", *shares.values()]


def data_options(study: ReconStudy, run: Run) -> list[object]:
    """Return the masks, and the baseline that an arm starts from."""
    if not SETTINGS["arms"][run.arm].get("starts"):
        return masks()
    return [*masks(), "--baseline", f"{study.model_folder(Run(arm=BASELINE, seed=run.seed))}:0"]


def score(reference: Path, predictions: Path) -> dict[str, dict[str, float]]:
    """Return the scores of every volume, and how far its power spectrum is from the target's."""
    from nnunet_kd.recon.evaluation.invention.spectrum import fine_detail_excess, power_error, spectral_distance
    from nnunet_kd.recon.evaluation.metrics import score_volume
    from nnunet_kd.recon.evaluation.volumes import read_prediction, read_target, volume_files

    found = {}
    for case, file in volume_files(predictions).items():
        target, image = read_target(reference / f"{case}.h5"), read_prediction(file)
        error = power_error(target, image)
        scores = score_volume(target, image, ("PSNR", "SSIM", "NMSE", "HFEN"))
        scores |= {"spectrum": spectral_distance(error), "fine detail": fine_detail_excess(error)}
        found[case] = {key: round(float(value), 5) for key, value in scores.items()}
    return found


def predict(study: ReconStudy, run: Run, options: tuple[object, ...] = ()) -> dict[str, dict[str, Any]]:
    """Return the scores per acceleration: of the image, and for generative arms of one sample too."""
    zero_filled = run.arm == ZERO_FILLED
    model = study.model_folder(Run(arm=BASELINE, seed=0) if zero_filled else run)
    generative = not zero_filled and SETTINGS["arms"][run.arm].get("generative")
    words = [*options, *(["--samples", SETTINGS["samples"], "--seed", 0] if generative else [])]
    found: dict[str, dict[str, Any]] = {}
    for factor, share in SETTINGS["accelerations"].items():
        masked = ["--mask", "random", "--acceleration", factor, "--center_fraction", share]
        folder = study.predict(model, f"{run.name}_x{factor}", [*masked, *words])
        found[factor] = {"mean" if generative else "image": score(study.reference, folder)}
        if generative:
            found[factor]["sample"] = score(study.reference, folder / "seed_0")
    return found


def run_all(place: Workplace, hearts: Path, heads: tuple[Path, Path]) -> None:
    """Train and score what has no result yet."""
    study = ReconStudy(place=place, settings=SETTINGS, name="Extreme", teacher=BASELINE)
    convert(study, hearts, heads)
    todo = runs()
    for number, run in enumerate(todo, 1):
        path = RESULTS / f"{run.name}.json"
        if path.is_file() and (study.is_trained(run) or run.arm != BASELINE):
            continue
        print(f"[{number}/{len(todo)}] {run.name}", flush=True)
        seconds = study.train(run, data_options(study, run))
        study.keep(run, path, predict(study, run), seconds)
    zero_filled = Run(arm=ZERO_FILLED, seed=0)
    path = RESULTS / f"{zero_filled.name}.json"
    if not path.is_file():
        study.keep(zero_filled, path, predict(study, zero_filled, ("--zero_filled",)), 0)


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
    verb.add_argument("--hearts", type=Path, required=True, help="folder of patientXXX_frameYY.h5 with the key image")
    verb.add_argument("--heads", type=Path, nargs=2, required=True, help="two NIfTI volumes: training, test")
    verb.add_argument("--work", type=Path, default=HERE / "work" / "extreme_acceleration", help="scratch folder")
    verbs.add_parser("report", help="write the tables and the plot into docs/")
    options = parser.parse_args()
    if options.verb == "run":
        first, second = (head.resolve() for head in options.heads)
        run_all(Workplace(options.work.resolve(), SETTINGS["threads"]), options.hearts.resolve(), (first, second))
        return
    from extreme_acceleration_report import write

    write(load(), SETTINGS)


if __name__ == "__main__":
    main()
