"""fastMRI: its files are case files as they are; its folders are splits.

https://fastmri.med.nyu.edu and https://github.com/facebookresearch/fastMRI: knee (``singlecoil_train``,
``singlecoil_val``, ``singlecoil_test``, ..., ``multicoil_...``) and brain (``multicoil_...``).
"""

import re
from dataclasses import replace
from pathlib import Path

from nnunet_kd.recon.data.arrays import centre_crop
from nnunet_kd.recon.data.case_header import read_header
from nnunet_kd.recon.data.cases import ENDING, Volume, read_volume
from nnunet_kd.recon.data.dataset import MEASURED
from nnunet_kd.recon.data.formats.source import (
    TEST,
    TRAIN,
    UNSPLIT,
    VAL,
    ReadOptions,
    SourceCase,
    SourceFormat,
    check_names,
    files_below,
    single,
)

_LAYOUT = "a folder with fastMRI's singlecoil_train, singlecoil_val, multicoil_test, ... or with .h5 files"
_FOLDER = re.compile(r"(singlecoil|multicoil)_(train|val|test|challenge)")
_PARTS = {"train": TRAIN, "val": VAL, "test": TEST, "challenge": TEST}
_V2 = "_v2"


def v2_name(name: str) -> str:
    """Return a case's name as the leaderboards want it, with ``_v2`` at its end.

    Example:
        >>> v2_name("file1000000"), v2_name("file1000000_v2")
        ('file1000000_v2', 'file1000000_v2')
    """
    return name if name.endswith(_V2) else name + _V2


def find(source: Path, options: ReadOptions) -> list[SourceCase]:
    """List the volumes; each of the organisers' folders is a part, files without target in others are tests.

    Raises:
        UsageError: If there are none, single- and multi-coil folders without a choice, or one volume twice.
    """
    by_coils: dict[str, list[Path]] = {}
    for folder in sorted(path for path in (source, *source.iterdir()) if path.is_dir()):
        if (match := _FOLDER.match(folder.name)) and (folder != source or any(folder.glob(f"*{ENDING}"))):
            by_coils.setdefault({"s": "single_coil", "m": "multi_coil"}[match[1][0]], []).append(folder)
    if by_coils:
        folders = single(by_coils, "acquisition", "--acquisition", options.acquisition)
        cases = [_case(file, _part(folder)) for folder in folders for file in files_below(folder, [ENDING])]
    else:
        cases = [_case(file, None) for file in files_below(source, [ENDING])]
    # a volume keeps its number under both names
    check_names([replace(case, name=case.name.removesuffix(_V2)) for case in cases], source, _LAYOUT)
    return cases


def _part(folder: Path) -> str:
    match = _FOLDER.match(folder.name)
    return _PARTS[match[2]] if match else UNSPLIT


def _case(file: Path, part: str | None) -> SourceCase:
    if part is None:
        part = UNSPLIT if read_header(file).has_target else TEST
    return SourceCase(name=file.name.removesuffix(ENDING), files=(file,), part=part)


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume; its target is cropped further where that is asked for.

    Raises:
        UsageError: As :func:`nnunet_kd.recon.data.cases.read_volume`.
    """
    volume = read_volume(case.files[0])
    if options.crop is None or volume.target is None:
        return volume
    target = centre_crop(volume.target, options.crop)
    return replace(volume, target=target, header=replace(volume.header, target_shape=options.crop))


FORMAT = SourceFormat(
    name="fastmri",
    summary="fastMRI's knee or brain HDF5 files, single- or multi-coil",
    layout=_LAYOUT,
    kspace=MEASURED,
    find=find,
    read=read,
    options=("acquisition", "crop"),
    linkable=True,
    licence="fastMRI Dataset Sharing Agreement",
    reference="https://arxiv.org/abs/1811.08839",
)
