"""Pictures show what was measured, where it is known."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.cli import main
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset
from nnunet_kd.recon.evaluation.measurement import measured_slice
from nnunet_kd.recon.evaluation.pictures import Sampling, plot_slice

h5py = pytest.importorskip("h5py")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A data set whose test cases were predicted by zero-filling twice; the second folder with other masks."""
    settings = PhantomSettings(n_slices=2, matrix=(24, 20), coils=2)
    sampling = {"mask": "equispaced", "acceleration": 4, "center_fraction": 0.2}
    folder = make_phantom_dataset(tmp_path / "Dataset901_P", 1, n_test=1, settings=settings, sampling=sampling)
    for name, record in (("as_planned", '"as planned"'), ("other", '{"acceleration": 2, "center_fraction": 0.2}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recon_prediction.json").write_text(f'{{"model": "zero-filled", "sampling": {record}}}')
    return folder


def test_the_masks_of_the_record_come_back(raw: Path, tmp_path: Path) -> None:
    (case,) = (raw / "kspaceTs").iterdir()
    planned, other = tmp_path / "as_planned", tmp_path / "other"
    alone = measured_slice(case, {"a": planned, "b": planned}, 1)
    mixed = measured_slice(case, {"b": other, "a": planned}, 1)
    assert alone is not None
    assert mixed is not None
    assert (alone.arm, mixed.arm) == ("", "b")
    assert 2 < alone.acceleration < 4
    assert mixed.acceleration < alone.acceleration
    with h5py.File(case) as file:
        power = (np.abs(file["kspace"][1]) ** 2).sum(axis=0)
    np.testing.assert_allclose(alone.kspace**2, power * alone.mask, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(alone.image) == pytest.approx(np.linalg.norm(alone.kspace), rel=1e-4)


def test_nothing_known_is_no_reason_to_stop(raw: Path, tmp_path: Path) -> None:
    (case,) = (raw / "kspaceTs").iterdir()
    (raw / "dataset.json").unlink()
    assert measured_slice(case, {"a": tmp_path / "as_planned"}, 0) is None
    with h5py.File(case, "a") as file:
        del file["kspace"]
    assert measured_slice(case, {"a": tmp_path / "as_planned"}, 0) is None


def test_evaluation_draws_the_case_of_the_median(raw: Path, tmp_path: Path) -> None:
    (case,) = (raw / "kspaceTs").iterdir()
    with h5py.File(case) as file, h5py.File(tmp_path / "as_planned" / case.name, "w") as found:
        found["reconstruction"] = file["reconstruction_rss"][()] * 0.9
    words = ["-i", tmp_path / "as_planned", "-r", raw / "kspaceTs", "-np", "0", "-o", tmp_path / "scores.json"]
    assert main(["recon", "evaluate", *map(str, words)]) == 0
    assert (tmp_path / "scores.png").stat().st_size > 10_000


def test_a_measured_column_makes_the_picture_wider(tmp_path: Path) -> None:
    target = np.random.default_rng(0).random((20, 16))
    sampling = Sampling(kspace=target, mask=np.ones((1, 16)), image=target, acceleration=1.0, arm="student")
    for name, column in (("with", sampling), ("without", None)):
        plot_slice(target, {"a": target / 2}, tmp_path / name, sampling=column)
    from PIL import Image

    widths = [Image.open(tmp_path / name).size[0] for name in ("with", "without")]
    assert widths[0] > widths[1] + 200
