"""Distill DSM on the Decathlon hippocampus: 2-D U-Net, shifts, learnt shifts, and a 3-D teacher beside them.

python benchmarks/distill_dsm.py run --data Task04_Hippocampus --teacher MODEL_FOLDER
python benchmarks/distill_dsm.py report
"""

import argparse

from study import Workplace, convert_hippocampus, main, run_study, settings_of

SETTINGS, RESULTS = settings_of("distill_dsm")


def run(place: Workplace, options: argparse.Namespace) -> None:
    """Train every arm on the same cases, with the same budget."""
    dataset = convert_hippocampus(place, options.data)
    place.preprocess(dataset, SETTINGS["configuration"], **SETTINGS["changes"])
    run_study(SETTINGS, RESULTS, place, dataset, [options.teacher.resolve()])


if __name__ == "__main__":
    main("distill_dsm", __doc__ or "", run)
