"""ISMRMRD: lines are put where their counters say; other kinds of data are refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.ismrmrd import FORMAT
from nnunet_kd.recon.data.formats.source import ReadOptions, SourceCase

XML = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>8</x><y>6</y><z>{z}</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>4</x><y>6</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>4</maximum><center>2</center>
</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def _kspace() -> Any:
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(2, 3, 8, 6)) + 1j * rng.normal(size=(2, 3, 8, 6))).astype(np.complex64)
    kspace[..., 0] = 0  # five lines from column 6 // 2 - 2 = 1 on
    return kspace


def _write(path: Path, kspace: Any, steps: list[int], *, z: int = 1, **idx: int) -> SourceCase:
    ismrmrd = pytest.importorskip("ismrmrd")
    dataset = ismrmrd.Dataset(str(path), "dataset")
    dataset.write_xml_header(XML.format(z=z))
    noise = ismrmrd.Acquisition.from_array(np.full((3, 8), 99, np.complex64))
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    dataset.append_acquisition(noise)
    for number in range(len(kspace)):
        for step in steps:
            line = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[number, :, :, step + 1]))
            line.idx.slice, line.idx.kspace_encode_step_1, line.center_sample = number, step, 4
            for name, value in idx.items():
                setattr(line.idx, name, value * (step == steps[-1]))
            dataset.append_acquisition(line)
    dataset.close()
    return SourceCase(name="a", files=(path,))


def test_lines_find_their_columns_and_averages_are_averaged(tmp_path: Path) -> None:
    kspace = _kspace()
    volume = FORMAT.read(_write(tmp_path / "a.h5", kspace, [4, 0, 1, 2, 3, 3]), ReadOptions())
    assert np.allclose(volume.kspace, kspace)
    assert volume.header.padding == (1, 6)
    assert volume.target is not None
    assert volume.target.shape == (2, 4, 6)


def test_undersampled_data_have_a_mask(tmp_path: Path) -> None:
    volume = FORMAT.read(_write(tmp_path / "a.h5", _kspace(), [0, 2, 4]), ReadOptions())
    assert volume.target is None
    assert volume.mask is not None
    assert volume.mask.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"), [({"z": 4}, "4 partitions"), ({"contrast": 1}, "one contrast .*'dataset/data'")]
)
def test_other_kinds_are_refused(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FORMAT.read(_write(tmp_path / "a.h5", _kspace(), [0, 1, 2], **options), ReadOptions())


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones(3)
    with pytest.raises(UsageError, match=r"'dataset/xml' and 'dataset/data' in .*a\.h5, found .*kspace"):
        FORMAT.read(SourceCase(name="a", files=(tmp_path / "a.h5",)), ReadOptions())


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ismrmrd", None)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("dataset/xml", data=[XML.format(z=1)])
        file["dataset/data"] = np.ones(3)
    with pytest.raises(UsageError, match=r"pip install 'nnunet-kd\[ismrmrd\]'"):
        FORMAT.read(SourceCase(name="a", files=(tmp_path / "a.h5",)), ReadOptions())
