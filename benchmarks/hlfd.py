"""HLFD on 2-D slices of the Decathlon hippocampus: a ResNet-18 student of a UNet++ teacher, and the paper's ablation.

The teacher is trained here, by the same budget as the students.

    python benchmarks/hlfd.py run --data Task04_Hippocampus
    python benchmarks/hlfd.py report
"""

import argparse

from study import Workplace, convert_hippocampus, main, run_study, settings_of

SETTINGS, RESULTS = settings_of("hlfd")


def run(place: Workplace, options: argparse.Namespace) -> None:
    """Train the teacher, then every arm on the same cases, with the same budget."""
    dataset = convert_hippocampus(place, options.data)
    place.preprocess(dataset, SETTINGS["configuration"], **SETTINGS["changes"])
    run_study(SETTINGS, RESULTS, place, dataset)


if __name__ == "__main__":
    main("hlfd", __doc__ or "", run)
