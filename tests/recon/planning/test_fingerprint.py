import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.recon.data.dataset import open_dataset
from nnunet_kd.recon.planning.fingerprint import (
    case_fingerprint,
    dataset_fingerprint,
    doubts,
    noise_estimate,
    read_fingerprint,
)


@pytest.fixture
def fingerprint(folders: Path) -> dict[str, Any]:
    return dataset_fingerprint(open_dataset("1"), n_workers=0)


def test_fingerprint_counts_what_is_there(fingerprint: dict[str, Any]) -> None:
    assert (fingerprint["matrices"], fingerprint["coils"]) == ([[32, 24]], [1])
    assert (fingerprint["target_shapes"], fingerprint["n_slices"]) == ([[20, 20]], 12)
    assert set(fingerprint["cases"]) == {f"phantom_{number:03d}" for number in range(6)}
    assert 0.5 < fingerprint["intensity"]["maximum"]["median"] < 1.5
    assert "sampling" not in fingerprint


@pytest.mark.parametrize("filled", [False, True], ids=["measured to the corners", "zero-filled"])
def test_noise_is_found_in_the_quieter_corners(filled: bool) -> None:
    rng = np.random.default_rng(0)
    kspace, images = (0.3 * (rng.normal(size=(2, 64, 64)) + 1j * rng.normal(size=(2, 64, 64))) for _ in range(2))
    images += 5
    if filled:
        kspace, images = np.zeros_like(kspace), images - 5
    noise, where = noise_estimate(kspace, images)
    assert noise == pytest.approx(0.3, rel=0.15)
    assert where == ("image corners" if filled else "k-space corners")


def test_phantoms_noise_is_about_what_was_put_in(fingerprint: dict[str, Any]) -> None:
    assert fingerprint["noise"]["median"] == pytest.approx(0.01 / math.sqrt(2), rel=0.5)


def test_own_mask_is_measured(folders: Path) -> None:
    path = folders / "raw" / "Dataset001_Single" / "kspaceTr" / "phantom_000.h5"
    mask = np.zeros(24, np.float32)
    mask[[1, 10, 11, 12, 13, 14, 20, 22]] = 1
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    facts = case_fingerprint(path, single_coil=True)
    assert facts["mask"] == {"true_acceleration": 3.0, "calibration_width": 5, "n_sampled": 8}


def test_magnitudes_that_call_themselves_measured_are_doubted(fingerprint: dict[str, Any]) -> None:
    assert fingerprint["imaginary_share"] > 0.01
    assert doubts(fingerprint, "measured") == []
    (line,) = doubts({**fingerprint, "imaginary_share": 1e-7}, "measured")
    assert "no phase" in line


def test_coils_in_a_single_coil_data_set_are_refused(folders: Path) -> None:
    path = folders / "raw" / "Dataset002_Multi" / "kspaceTr" / "phantom_000.h5"
    with pytest.raises(UsageError, match=r"phantom_000\.h5, kspace: expected a single coil"):
        case_fingerprint(path, single_coil=True)


def test_fingerprint_of_other_cases_is_refused(planned: Path, folders: Path) -> None:
    (folders / "raw" / "Dataset001_Single" / "kspaceTr" / "phantom_000.h5").unlink()
    settings = read_json_object(folders / "raw" / "Dataset001_Single" / "dataset.json")
    path = folders / "raw" / "Dataset001_Single" / "dataset.json"
    path.write_text(json.dumps(settings | {"numTraining": 5}))
    with pytest.raises(UsageError, match=r"taken of other cases.*--overwrite"):
        read_fingerprint(planned, open_dataset("1"))


def test_faulty_case_is_named_and_nothing_written(run: Callable[..., None], folders: Path) -> None:
    path = folders / "raw" / "Dataset001_Single" / "kspaceTr" / "phantom_003.h5"
    with h5py.File(path, "a") as file:
        file["kspace"][1, 2, 3] = np.nan
    path_of_result = folders / "preprocessed" / "Dataset001_Single" / "dataset_fingerprint.json"
    before = path_of_result.read_bytes()
    with pytest.raises(UsageError, match=r"exists; type --overwrite"):
        run("extract_fingerprint", "-d", "1")
    with pytest.raises(UsageError, match=r"NaN or infinity; nothing was written$"):
        run("extract_fingerprint", "-d", "1", "--overwrite")
    assert path_of_result.read_bytes() == before
