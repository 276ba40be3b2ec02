"""``nnunet_kd recon extract_fingerprint``: what a raw data set holds."""

import argparse
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import nnunet_folder, write_json_atomically

EXAMPLE = "nnunet_kd recon extract_fingerprint -d 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-d", metavar="ID", required=True, help="raw data set, number or name")
    add_process_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="take the fingerprint again")


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the work over cases is done."""
    parser.add_argument("-np", type=int, metavar="N", help="processes (default: one per core where that pays)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="running dask scheduler, tcp://HOST:PORT")


def check_processes(options: argparse.Namespace) -> None:
    """Refuse a number of processes below 0.

    Raises:
        UsageError: If there is one.
    """
    if options.np is not None and options.np < 0:
        raise UsageError(f"-np: expected a whole number >= 0, got {options.np}")


def run(options: argparse.Namespace) -> None:
    """Read all cases and write ``dataset_fingerprint.json``.

    Raises:
        UsageError: For a faulty data set, or a fingerprint that is there already.
    """
    from nnunet_kd.recon.data.dataset import open_dataset
    from nnunet_kd.recon.planning.fingerprint import FILE, dataset_fingerprint, doubts

    check_processes(options)
    dataset = open_dataset(options.d)
    path = nnunet_folder("nnUNet_preprocessed") / dataset.name / FILE
    if path.exists() and not options.overwrite:
        raise UsageError(f"{path} exists; type --overwrite to take it again")
    fingerprint = dataset_fingerprint(dataset, scheduler=options.scheduler, n_workers=options.np)
    path.parent.mkdir(exist_ok=True)
    write_json_atomically(fingerprint, path)
    print("\n".join(described(fingerprint)))
    for line in doubts(fingerprint, dataset.settings["kspace"]):
        print(f"look: {line}")
    print(f"\nwrote {path}\n\nnext:\n  nnunet_kd recon plan -d {dataset.name}")


def described(fingerprint: dict[str, Any]) -> list[str]:
    """Return the fingerprint in a few lines."""
    noise, maximum = fingerprint["noise"]["median"], fingerprint["intensity"]["maximum"]["median"]
    lines = [
        f"cases        {len(fingerprint['cases'])}, {fingerprint['n_slices']} slices",
        f"matrices     {', '.join(f'{h}x{w}' for h, w in fingerprint['matrices'])}",
        f"targets      {', '.join(f'{h}x{w}' for h, w in fingerprint['target_shapes']) or 'none'}",
        f"coils        {', '.join(map(str, fingerprint['coils']))}",
        f"maximum      {maximum:.3g} (median over cases)",
        f"noise        {noise:.3g} (median over cases)",
    ]
    sampling = fingerprint.get("sampling")
    if sampling:
        true, width = sampling["true_acceleration"], sampling["calibration_width"]
        lines.append(
            f"own masks    {sampling['n_cases']} cases, true acceleration {true['median']:.2f}, "
            f"calibration {width['median']:.0f} lines (medians)"
        )
    return lines
