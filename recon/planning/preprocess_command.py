"""``nnunet_kd recon preprocess``: raw cases become what training reads."""

import argparse

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import nnunet_folder
from nnunet_kd.recon.planning.extract_fingerprint_command import add_process_arguments, check_processes

EXAMPLE = "nnunet_kd recon preprocess -d 1 -p nnUNetReconPlans -np 4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-d", metavar="ID", required=True, help="raw data set, number or name")
    parser.add_argument("-p", metavar="PLANS", default="nnUNetReconPlans", help="name of the plans (%(default)s)")
    parser.add_argument("-c", metavar="CONFIGURATION", nargs="+", help="configurations (default: all of the plans)")
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="folds by patient (default: those of dataset.json, else 5); 0 makes none, for training on all",
    )
    add_process_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(options: argparse.Namespace) -> None:
    """Check everything, write the cases of each configuration and the folds.

    Raises:
        UsageError: If a case is faulty or not as planned; nothing is written then.
    """
    from nnunet_kd.recon.data.dataset import open_dataset
    from nnunet_kd.recon.planning.overview import trainer_name
    from nnunet_kd.recon.planning.plans import read_plans
    from nnunet_kd.recon.planning.preprocess import planned_identifiers, preprocess
    from nnunet_kd.recon.planning.splits import planned_splits, write_splits

    check_processes(options)
    if options.folds is not None and (options.folds < 0 or options.folds == 1):
        raise UsageError(f"--folds: expected 0, or a whole number >= 2, got {options.folds}")
    dataset = open_dataset(options.d)
    folder = nnunet_folder("nnUNet_preprocessed") / dataset.name
    path = folder / f"{options.p}.json"
    if not path.is_file():
        raise UsageError(f"expected plans at {path}, found none; type: nnunet_kd recon plan -d {dataset.name}")
    plans = read_plans(path)
    splits = planned_splits(dataset, folder, options.folds)
    configurations = options.c or list(plans.configurations)
    for configuration in planned_identifiers(plans, configurations).values():
        target = preprocess(
            dataset,
            plans,
            configuration,
            folder,
            overwrite=options.overwrite,
            scheduler=options.scheduler,
            n_workers=options.np,
        )
        print(f"wrote {target}: {len(dataset.training)} cases")
    write_splits(splits, folder)
    print(f"wrote {folder / 'splits_final.json'}: {len(splits)} folds by patient")
    name, fold = configurations[0], 0 if splits else "all"
    trainer = trainer_name(plans, name)
    print(f"\nnext:\n  nnunet_kd recon train {options.d} {name} {fold} -tr {trainer} -p {options.p}")
