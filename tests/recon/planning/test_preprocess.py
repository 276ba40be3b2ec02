import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import make_volume, read_volume, write_volume
from nnunet_kd.recon.data.dataset import open_dataset
from nnunet_kd.recon.data.samples import PreprocessedCases, make_sample, sample_settings, volume_scale
from nnunet_kd.recon.planning import preprocess as module
from nnunet_kd.recon.planning.plans import ReconPlans, read_plans
from nnunet_kd.recon.planning.preprocess import preprocess

CASE = "phantom_002"


def _preprocess(planned: Path, **options: Any) -> Path:
    plans = read_plans(planned / "nnUNetReconPlans.json")
    return preprocess(open_dataset("1"), plans, "2d", planned, n_workers=0, **options)


def _raw(folders: Path, name: str = "Dataset001_Single") -> Path:
    return folders / "raw" / name / "kspaceTr" / f"{CASE}.h5"


def test_arrays_are_those_of_the_raw_file(planned: Path, folders: Path) -> None:
    cases = PreprocessedCases(_preprocess(planned))
    volume = read_volume(_raw(folders))
    assert len(cases) == 12
    assert cases.facts[CASE].patient == "patient_r002"
    for index in range(2):
        data = cases.read(CASE, index)
        np.testing.assert_array_equal(data.kspace[0], volume.kspace[index])
        np.testing.assert_array_equal(data.target, volume.target[index])


def test_target_is_computed_where_the_file_has_none(planned: Path, folders: Path) -> None:
    with h5py.File(_raw(folders), "a") as file:
        kept = file["reconstruction_esc"][:]
        del file["reconstruction_esc"]
    target = PreprocessedCases(_preprocess(planned)).read(CASE, 1).target
    assert target.shape == (32, 24)
    np.testing.assert_allclose(target[6:26, 2:22], kept[1], atol=1e-5)


def _other_matrix(path: Path) -> None:
    volume = read_volume(path)
    write_volume(path, make_volume(CASE, volume.kspace[:, 0, :30]))


def _nan(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["kspace"][0, 1, 1] = np.inf


def _empty(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["kspace"][1] = 0


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _mask_without_target(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["mask"] = np.ones(24, np.float32)
        del file["reconstruction_esc"]


def _two_coils(path: Path) -> None:
    kspace = read_volume(path).kspace
    write_volume(path, make_volume(CASE, np.concatenate([kspace, kspace], axis=1)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_matrix, "expected a matrix of 32x24 in key 'kspace' of .*phantom_002.h5, as planned, got 30x24"),
        (_two_coils, "expected 1 coils as planned in key 'kspace' of .*phantom_002.h5, got 2"),
        (_nan, "finite numbers in key 'kspace' of .*phantom_002.h5"),
        (_empty, "every slice of key 'kspace' of .*phantom_002.h5, all is 0 in slice 1"),
        (_truncated, "cannot read .*phantom_002.h5 as HDF5"),
        (_mask_without_target, "expected the key 'reconstruction_esc' in .*phantom_002.h5"),
    ],
)
def test_bad_case_is_one_line_and_nothing_is_written(
    planned: Path, folders: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(_raw(folders))
    before = sorted(planned.iterdir())
    with pytest.raises(UsageError, match=message) as error:
        _preprocess(planned)
    assert "\n" not in str(error.value)
    assert sorted(planned.iterdir()) == before


def test_a_full_disk_is_one_line(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("Could not build empty array")

    monkeypatch.setattr(module, "empty_array", full)
    with pytest.raises(UsageError, match=r"Could not build empty array.*free space") as error:
        _preprocess(planned)
    assert "\n" not in str(error.value)


def test_interrupted_run_is_finished_by_the_next(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, original = [], module.preprocess_case

    def interrupted(job: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.name)
        original(job)

    monkeypatch.setattr(module, "preprocess_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _preprocess(planned)
    written, write = [], module.write_arrays
    monkeypatch.setattr(module, "preprocess_case", original)
    monkeypatch.setattr(module, "write_arrays", lambda job, header: (written.append(job.name), write(job, header)))
    assert len(PreprocessedCases(_preprocess(planned))) == 12
    assert sorted([*done, *written]) == [f"phantom_{number:03d}" for number in range(6)]


def test_other_plans_share_what_does_not_depend_on_them(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _preprocess(planned)
    monkeypatch.setattr(module, "map_files", lambda *_, **__: pytest.fail("preprocessed twice"))
    plans = read_plans(planned / "nnUNetReconPlans.json")
    other = replace(plans, plans_name="OtherPlans", sampling={"mask": "magic"})
    assert preprocess(open_dataset("1"), other, "2d", planned) == folder


def test_changed_raw_files_ask_for_overwrite(planned: Path, folders: Path) -> None:
    _preprocess(planned)
    with h5py.File(_raw(folders), "a") as file:
        file["kspace"][:] *= 2
    with pytest.raises(UsageError, match="cases of other data or masks; type --overwrite"):
        _preprocess(planned)
    cases = PreprocessedCases(_preprocess(planned, overwrite=True))
    np.testing.assert_array_equal(cases.read(CASE, 0).kspace[0], read_volume(_raw(folders)).kspace[0])


@pytest.fixture
def multi(folders: Path) -> tuple[Path, ReconPlans]:
    folder = folders / "preprocessed" / "Dataset002_Multi"
    return folder, read_plans(folder / "nnUNetReconPlans.json")


def test_sensitivities_know_only_what_every_mask_samples(multi: tuple[Path, ReconPlans], folders: Path) -> None:
    folder, plans = multi
    planned = plans.configuration("2d")
    before = PreprocessedCases(folder / planned.data_identifier).read(CASE, 0).sensitivities
    with h5py.File(_raw(folders, "Dataset002_Multi"), "a") as file:
        # 20 % of 24 lines are the smaller centre: lines 10 to 14, of which 10 to 13 lie evenly about the middle
        file["kspace"][..., :9] += 1
        file["kspace"][..., 15:] += 1
    dataset = open_dataset("2")
    cases = PreprocessedCases(preprocess(dataset, plans, "2d", folder, overwrite=True, n_workers=0))
    np.testing.assert_allclose(cases.read(CASE, 0).sensitivities, before, atol=1e-6)


def test_volume_scale_is_the_largest_of_its_slices(multi: tuple[Path, ReconPlans]) -> None:
    folder, plans = multi
    configuration = plans.configuration("2d")
    cases, settings = PreprocessedCases(folder / configuration.data_identifier), sample_settings(plans, configuration)
    slices = [cases.read(CASE, index) for index in range(2)]
    stored = cases.facts[CASE].volume_scale
    assert stored == pytest.approx(volume_scale(slices, settings), rel=1e-5)
    largest = [float(make_sample(one, settings, volume_scale=stored).acquisition.image.abs().max()) for one in slices]
    assert max(largest) == pytest.approx(1, rel=1e-5)
    assert min(largest) < max(largest)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"coil": 1}, "unknown key 'coil'"),
        ({"n_slices": "2"}, "n_slices: expected a whole number >= 1"),
        ({"n_coils": None}, "n_coils: expected a whole number >= 1"),
        ({"matrix": 32}, "matrix: expected two whole numbers"),
        ({"target_shape": [20, 2.5]}, "target_shape: expected a whole number >= 1"),
        ({"padding": [-1, 3]}, "padding: expected a whole number >= 0"),
        ({"patient": 7}, "patient: expected text"),
        ({"volume_scale": 0}, "volume_scale: expected a number > 0"),
        ({"mask": [[0, 1]]}, "mask: expected rows of 0 and 1 of the matrix (32, 24)"),
        ({"mask": [[0] * 24]}, "not all 0"),
        ({"mask": [[2] * 24]}, "mask: expected rows of 0 and 1"),
        ({"mask": 1}, "mask: expected rows of 0 and 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_damaged_facts_are_refused(planned: Path, changed: dict[str, Any], message: str) -> None:
    folder = _preprocess(planned)
    path = folder / f"{CASE}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UsageError) as caught:
        PreprocessedCases(folder)
    assert "phantom_002.json" in str(caught.value)
    assert message in str(caught.value)
    assert str(caught.value).endswith("; type: nnunet_kd recon preprocess -d Dataset001_Single --overwrite")


def test_truncated_facts_are_refused(planned: Path) -> None:
    path = _preprocess(planned) / f"{CASE}.json"
    path.write_text(path.read_text()[:40])
    with pytest.raises(UsageError, match=r"phantom_002\.json as JSON.*; type: .*Dataset001_Single --overwrite"):
        PreprocessedCases(path.parent)


@pytest.mark.parametrize("ending", ["", "_target"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "another"])
def test_damaged_arrays_are_refused(planned: Path, ending: str, damage: str) -> None:
    folder = _preprocess(planned)
    path = folder / f"{CASE}{ending}.b2nd"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "gone":
        path.unlink()
    else:
        module.empty_array(path, (2, 3, 3), np.float32)
    with pytest.raises(UsageError, match=rf"cannot read .*{path.name}: .*; type: .*Dataset001_Single --overwrite"):
        PreprocessedCases(folder).read(CASE, 1)


@pytest.mark.parametrize(
    ("names", "message"), [(["phantom_9"], "expected case 'phantom_9'"), (None, "no preprocessed")]
)
def test_missing_cases_are_named(planned: Path, tmp_path: Path, names: list[str] | None, message: str) -> None:
    folder = _preprocess(planned) if names else tmp_path
    with pytest.raises(UsageError, match=f"{message}.*nnunet_kd recon preprocess -d"):
        PreprocessedCases(folder, names)
