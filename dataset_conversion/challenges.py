"""The challenges by name: a new one is a file with ``CHALLENGES``, and a line here."""

from importlib import import_module

from nnunet_kd.dataset_conversion.challenge import Challenge

MODULES: dict[str, str] = {
    "decathlon": "nnunet_kd.dataset_conversion.decathlon",
    "brats2018": "nnunet_kd.dataset_conversion.brats",
    "brats2019": "nnunet_kd.dataset_conversion.brats",
    "brats2020": "nnunet_kd.dataset_conversion.brats",
    "brats2021": "nnunet_kd.dataset_conversion.brats",
    "brats2023": "nnunet_kd.dataset_conversion.brats",
    "brats2023-men": "nnunet_kd.dataset_conversion.brats",
    "brats2023-met": "nnunet_kd.dataset_conversion.brats",
    "brats2023-ped": "nnunet_kd.dataset_conversion.brats",
    "brats2023-ssa": "nnunet_kd.dataset_conversion.brats",
    "brats2024": "nnunet_kd.dataset_conversion.brats",
    "brats2024-met": "nnunet_kd.dataset_conversion.brats",
    "brats2024-ped": "nnunet_kd.dataset_conversion.brats",
    "brats2024-ssa": "nnunet_kd.dataset_conversion.brats",
    "brats-pool": "nnunet_kd.dataset_conversion.brats",
    "kits19": "nnunet_kd.dataset_conversion.kits",
    "kits21": "nnunet_kd.dataset_conversion.kits",
    "kits21-or": "nnunet_kd.dataset_conversion.kits",
    "kits21-and": "nnunet_kd.dataset_conversion.kits",
    "kits21-single": "nnunet_kd.dataset_conversion.kits",
    "kits23": "nnunet_kd.dataset_conversion.kits",
    "lits17": "nnunet_kd.dataset_conversion.lits",
    "acdc": "nnunet_kd.dataset_conversion.acdc",
    "fastmri": "nnunet_kd.dataset_conversion.fastmri",
}


def challenge(name: str) -> Challenge:
    """Return a challenge by its name.

    Args:
        name: A key of :data:`MODULES`.
    """
    found: Challenge = import_module(MODULES[name]).CHALLENGES[name]
    return found
