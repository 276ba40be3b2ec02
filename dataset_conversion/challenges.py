"""The challenges by name: a new one is a file with ``CHALLENGES``, and a line here."""

from importlib import import_module

from nnunet_kd.dataset_conversion.challenge import Challenge

MODULES: dict[str, str] = {
    "decathlon": "nnunet_kd.dataset_conversion.decathlon",
}


def challenge(name: str) -> Challenge:
    """Return a challenge by its name.

    Args:
        name: A key of :data:`MODULES`.
    """
    found: Challenge = import_module(MODULES[name]).CHALLENGES[name]
    return found
