"""Pseudo-labels on the Decathlon hippocampus: 40 labelled cases, 120 as an unlabelled pool, three teachers.

The teachers are trained on the 40 alone and label the pool together. Both arms of students share
one mixed data set and its plans; fold 0 trains on everything, fold 1 on the 40 alone, both validate on the test cases.

    python benchmarks/semi_supervised.py run --data Task04_Hippocampus
    python benchmarks/semi_supervised.py report
"""

import argparse
import json
import shutil

import numpy as np
from study import Workplace, convert_hippocampus, main, run_study, settings_of, trainings

SETTINGS, RESULTS = settings_of("semi_supervised")
LABELLED, MIXED = "Dataset041_HippocampusLabelled", "Dataset042_HippocampusMixed"
SEED = 0  # of the choice of the labelled cases


def label_pool(place: Workplace, source: str) -> None:
    """Split the training cases, train the teachers, and let them label the pool."""
    split = json.loads((place.preprocessed / source / "splits_final.json").read_text())[0]
    chosen = np.random.default_rng(SEED).permutation(sorted(split["train"]))
    labelled, pool = sorted(chosen[: SETTINGS["n_labelled"]]), sorted(chosen[SETTINGS["n_labelled"] :])
    _labelled_dataset(place, source, [*labelled, *split["val"]])
    pool_folder = place.folder / "pool"
    pool_folder.mkdir(exist_ok=True)
    for case in pool:
        name = f"{case}_0000.nii.gz"
        shutil.copyfile(place.raw / source / "imagesTr" / name, pool_folder / name)
    own = place.preprocessed / LABELLED
    own.mkdir(exist_ok=True)
    (own / "splits_final.json").write_text(json.dumps([{"train": labelled, "val": split["val"]}]))
    place.preprocess(LABELLED, SETTINGS["configuration"], **SETTINGS["changes"])
    teaching = {**SETTINGS, "arms": SETTINGS["teachers"]}
    run_study(teaching, RESULTS, place, LABELLED, keep=True)
    if (place.raw / MIXED).is_dir():
        return
    teachers = [f"--teacher={place.model_folder(training)}" for training in trainings(teaching, LABELLED, place, ())]
    place.call(
        ["-m", "nnunet_kd", "pseudo_label", "-i", str(pool_folder), "-o", MIXED, "--labelled", LABELLED, *teachers,
         "-f", "0", "-np", "0", "-device", "cpu"],
        "pseudo_label",
    )  # fmt: skip
    path = place.preprocessed / MIXED / "splits_final.json"
    (whole,) = json.loads(path.read_text())
    path.write_text(json.dumps([whole, {"train": labelled, "val": split["val"]}]))


def _labelled_dataset(place: Workplace, source: str, cases: list[str]) -> None:
    target = place.raw / LABELLED
    if (target / "dataset.json").is_file():
        return
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for case in cases:
            shutil.copyfile(place.raw / source / folder / f"{case}{ending}", target / folder / f"{case}{ending}")
    description = json.loads((place.raw / source / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**description, "numTraining": len(cases)}))


def run(place: Workplace, options: argparse.Namespace) -> None:
    """Label the pool, then train students with and without it."""
    label_pool(place, convert_hippocampus(place, options.data))
    place.preprocess(MIXED, SETTINGS["configuration"], **SETTINGS["changes"])
    run_study(SETTINGS, RESULTS, place, MIXED)


if __name__ == "__main__":
    main("semi_supervised", __doc__ or "", run)
