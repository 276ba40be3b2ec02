"""Find ``nnunet_kd.trainers`` and its siblings when the package runs from a checkout.

In a wheel they lie inside ``nnunet_kd``; in a checkout they are folders beside it.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

SIBLINGS = ("trainers", "dataset_conversion", "recon")
ROOT = Path(__file__).resolve().parent.parent


class _SiblingFinder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  # the protocol's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != "nnunet_kd" or name not in SIBLINGS:
            return None
        folder = ROOT / name
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def install() -> None:
    """Add the finder, once and only in a checkout."""
    in_checkout = (ROOT / "setup.py").is_file() and all((ROOT / name).is_dir() for name in SIBLINGS)
    if in_checkout and not any(type(finder).__name__ == _SiblingFinder.__name__ for finder in sys.meta_path):
        # first: another checkout that is installed with -e would answer for the siblings of this one
        sys.meta_path.insert(0, _SiblingFinder())
