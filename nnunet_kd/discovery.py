"""How nnU-Net finds our trainers: one folder appended to ``nnUNet_extTrainer``.

nnU-Net imports every module of the folders in that variable and afterwards removes
modules lying below them from ``sys.modules``. So the folder must hold nothing but one
module that re-exports the trainers; pointing at the package itself would break
pickling and relative imports.
"""

import contextlib
import os
from pathlib import Path

VARIABLE = "nnUNet_extTrainer"
AUTOLOAD = "NNUNET_KD_AUTOLOAD"
FOLDER = Path(__file__).resolve().parent / "nnunet_ext"


def register() -> None:
    """Append our folder to ``nnUNet_extTrainer``; folders of the user stay, and stay first."""
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    if str(FOLDER) not in folders:
        os.environ[VARIABLE] = os.pathsep.join([*folders, str(FOLDER)])


def autoload() -> None:
    """Register unless ``NNUNET_KD_AUTOLOAD=0``. PyTorch calls this at ``import torch``, so it must never raise."""
    if os.environ.get(AUTOLOAD, "1") == "0":
        return
    with contextlib.suppress(Exception):  # an exception here would make `import torch` fail for every program
        register()
