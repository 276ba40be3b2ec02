"""fastMRI's folders: its parts, its choices, its names."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.fastmri import FORMAT, v2_name
from nnunet_kd.recon.data.formats.source import ReadOptions


def _write(path: Path, *, target: bool = True, coils: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((2, coils, 8, 6) if coils else (2, 8, 6), np.complex64)
        if target:
            file["reconstruction_rss" if coils else "reconstruction_esc"] = np.ones((2, 4, 4), np.float32)


def test_the_organisers_folders_are_parts(tmp_path: Path) -> None:
    for number, folder in enumerate(("train", "val", "test_v2", "challenge")):
        _write(tmp_path / f"singlecoil_{folder}" / f"file{number}.h5", target=number < 2)
    found = {case.name: case.part for case in FORMAT.find(tmp_path, ReadOptions())}
    assert found == {"file0": "train", "file1": "val", "file2": "test", "file3": "test"}


def test_one_folder_alone_is_its_part(tmp_path: Path) -> None:
    _write(tmp_path / "multicoil_val" / "file1.h5", coils=2)
    assert [case.part for case in FORMAT.find(tmp_path / "multicoil_val", ReadOptions())] == ["val"]


def test_other_folders_have_no_parts_but_tests_without_target(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5")
    _write(tmp_path / "b.h5", target=False)
    assert [case.part for case in FORMAT.find(tmp_path, ReadOptions())] == ["", "test"]


def test_single_and_multi_coil_need_a_choice(tmp_path: Path) -> None:
    _write(tmp_path / "singlecoil_train" / "file1.h5")
    _write(tmp_path / "multicoil_train" / "file1.h5", coils=2)
    with pytest.raises(UsageError, match=r"--acquisition .* single_coil"):
        FORMAT.find(tmp_path, ReadOptions())
    (case,) = FORMAT.find(tmp_path, ReadOptions(acquisition="multi_coil"))
    assert FORMAT.read(case, ReadOptions()).header.n_coils == 2


def test_a_volume_is_the_same_under_its_new_name(tmp_path: Path) -> None:
    _write(tmp_path / "singlecoil_train" / "file1.h5")
    _write(tmp_path / "singlecoil_val" / "file1_v2.h5")
    with pytest.raises(UsageError, match="every case once"):
        FORMAT.find(tmp_path, ReadOptions())


def test_the_leaderboards_names_end_in_v2() -> None:
    assert [v2_name(name) for name in ("file1", "file1_v2")] == ["file1_v2", "file1_v2"]


def test_a_target_can_be_cropped_further(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5")
    (case,) = FORMAT.find(tmp_path, ReadOptions())
    volume = FORMAT.read(case, ReadOptions(crop=(2, 3)))
    assert volume.target is not None
    assert volume.target.shape == (2, 2, 3) == (2, *(volume.header.target_shape or ()))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found no case"):
        FORMAT.find(tmp_path, ReadOptions())
