"""``recon predict``: volumes against hand-made ones, geometry, faults, interrupted work."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from nnunet_kd import cli
from nnunet_kd.recon.data.cases import read_volume
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.training.models import load_network

h5py = pytest.importorskip("h5py")


def _read(file: Path) -> np.ndarray:
    with h5py.File(file) as content:
        assert list(content) == ["reconstruction"]  # fastMRI's leaderboard takes nothing else
        return content["reconstruction"][()]


def _to_image(kspace: np.ndarray) -> np.ndarray:
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)


def _mask(place: Any, case: Path) -> np.ndarray:
    """The mask that the plans draw for a volume of this name."""
    from nnunet_kd.recon.inference.models import zero_filling
    from nnunet_kd.recon.inference.predictor import used_mask
    from nnunet_kd.recon.planning.plans import read_plans

    read = read_plans(place.model / "plans.json")
    return used_mask(zero_filling(read, read.configuration("2d")), case)


def test_zero_filled_images_are_on_the_scale_of_the_data(place: Any) -> None:
    """A scale that is not undone, or a mask of another volume, would show."""
    assert place.predict("--zero_filled") == 0
    for case in sorted(place.cases.glob("*.h5")):
        volume = read_volume(case)
        expected = np.abs(_to_image(volume.kspace[:, 0] * _mask(place, case)))
        np.testing.assert_allclose(_read(place.output / case.name), expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_folds_are_averaged_as_magnitudes(place: Any) -> None:
    assert place.predict() == 0
    case = sorted(place.cases.glob("*.h5"))[0]
    kspace = torch.from_numpy(read_volume(case).kspace)
    mask = torch.from_numpy(_mask(place, case)).expand(len(kspace), -1, -1)
    measured = kspace * mask[:, None]
    image = torch.from_numpy(_to_image(measured[:, 0].numpy()).astype(np.complex64))
    scale = image.abs().amax(dim=(1, 2))
    acquisition = Acquisition(
        kspace=measured / scale[:, None, None, None],
        mask=mask,
        sensitivities=torch.ones_like(kspace),
        image=image / scale[:, None, None],
        context=kspace.new_zeros(len(kspace), 0, *kspace.shape[-2:]),
    )
    with torch.no_grad():
        images = [load_network(place.model, fold)[0](acquisition).abs() for fold in (0, 1)]
    expected = (images[0] + images[1]) / 2 * scale[:, None, None]
    torch.testing.assert_close(torch.from_numpy(_read(place.output / case.name)), expected, rtol=1e-3, atol=1e-4)
    record = json.loads((place.output / "recon_prediction.json").read_text())
    assert 2 < record["cases"][case.name]["true_acceleration"] < 6


def test_other_masks_and_a_crop(place: Any) -> None:
    place.rewrite(configuration={"crop": [16, 12]})
    assert place.predict("--acceleration", 2, "--center_fraction", 0.2, "-f", 0) == 0
    for case in place.cases.glob("*.h5"):
        assert _read(place.output / case.name).shape == (3, 16, 12)
    cases = json.loads((place.output / "recon_prediction.json").read_text())["cases"]
    assert all(1.2 < case["true_acceleration"] < 3 for case in cases.values())


def test_nifti_comes_back_where_it_was(tmp_path: Path, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is truncated, so the images themselves must come back, in their place, whatever the slices' axis."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    random = np.random.default_rng(0)
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
    image = (1 + random.random((20, 24, 8))).astype("f4")
    (tmp_path / "source").mkdir()
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "source" / "head.nii.gz")
    words = ["magnitude", "-i", tmp_path / "source", "-d", 961, "-n", "Head", "--axis", 1, "--truncation", 2, 2]
    assert cli.main(["recon", "convert", *map(str, words), "-np", "1"]) == 0
    place.rewrite(task="super_resolution", sampling=None, truncation={"factor": [1, 1]})
    raw = tmp_path / "raw" / "Dataset961_Head"
    assert place.predict("--zero_filled", source=raw / "kspaceTr") == 0
    (found,) = place.output.glob("*.nii.gz")
    written = nibabel.load(found)
    np.testing.assert_allclose(written.affine, affine)
    np.testing.assert_allclose(written.get_fdata(), image, rtol=1e-4)
    assert cli.main(["recon", "evaluate", "-i", str(place.output), "-r", str(raw / "kspaceTr"), "-np", "0"]) == 0
    assert json.loads((place.output / "summary.json").read_text())["mean"]["volume"]["PSNR"] > 70


def _coils(file: Path) -> None:
    with h5py.File(file, "a") as content:
        kspace = content["kspace"][()]
        del content["kspace"]
        content["kspace"] = np.stack([kspace, kspace], axis=1)
        del content["reconstruction_esc"]


def _nan(file: Path) -> None:
    with h5py.File(file, "a") as content:
        content["kspace"][1, 0, 0] = np.nan


def _mask_of_wrong_length(file: Path) -> None:
    with h5py.File(file, "a") as content:
        content["mask"] = np.ones(7)


def _no_kspace(file: Path) -> None:
    with h5py.File(file, "a") as content:
        del content["kspace"]


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])


FAULTS = {
    "coils": (_coils, "1 coils in key 'kspace'"),
    "nan": (_nan, "finite"),
    "mask": (_mask_of_wrong_length, "'mask'"),
    "key": (_no_kspace, "'kspace'"),
    "truncated": (_truncate, "cannot read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_stops_no_other(place: Any, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted(place.cases.glob("*.h5"))
    spoil, words = FAULTS[fault]
    whole = first.read_bytes()
    spoil(first)
    assert place.predict("-f", 0) == 2
    message = capsys.readouterr().err
    assert words in message
    assert first.name in message
    assert [file.name for file in place.output.glob("*.h5")] == [second.name]
    first.write_bytes(whole)
    assert place.predict("-f", 0) == 2  # the other one exists
    assert place.predict("-f", 0, "--continue_prediction") == 0
    assert len(list(place.output.glob("*.h5"))) == 2


def test_two_cases_of_one_name_are_refused(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case = min(place.cases.glob("*.h5"))
    assert place.predict("-i", case, place.cases) == 2
    assert "more than one case for" in capsys.readouterr().err
    assert not place.output.exists()


@pytest.mark.parametrize("record", ["[1]", "{", '{"cases": [1]}'])
def test_a_damaged_record_is_refused_before_anything_is_written(
    place: Any, capsys: pytest.CaptureFixture[str], record: str
) -> None:
    place.output.mkdir()
    (place.output / "recon_prediction.json").write_text(record)
    assert place.predict("-f", 0) == 2
    assert "recon_prediction.json" in capsys.readouterr().err
    assert not list(place.output.glob("*.h5"))


def test_threads_that_no_machine_has(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.predict("--threads", 10**8) == 2
    assert "--threads: expected at most" in capsys.readouterr().err


def test_weights_that_are_not_finite_write_no_image(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for path in place.model.glob("fold_0/*.pth"):
        checkpoint = torch.load(path, weights_only=True)
        for weight in checkpoint["network_weights"].values():
            weight.fill_(float("nan"))
        torch.save(checkpoint, path)
    assert place.predict("-f", 0) == 2
    assert "NaN or infinity" in capsys.readouterr().err
    assert not list(place.output.glob("*.h5"))


def test_parts_share_the_cases(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for part in range(2):
        assert place.predict("-f", 0, "-num_parts", 2, "-part_id", part) == 0
        assert len(list(place.output.glob("*.h5"))) == part + 1
    assert place.predict("-num_parts", 2, "-part_id", 2) == 2
    assert "count from 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["-f", 7], "fold 7"), (["-chk", "checkpoint_best.pth"], "checkpoint_best.pth"), (["--mask", "spiral"], "spiral")],
    ids=["fold", "checkpoint", "mask"],
)
def test_models_that_are_not_there(
    place: Any, words: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.predict(*words) == 2
    assert message in capsys.readouterr().err
    assert not place.output.exists()


@pytest.mark.parametrize("coils", [1, 3])
def test_nothing_is_read_that_the_mask_leaves_out(place: Any, coils: int) -> None:
    """Neither the scale nor the coils' sensitivities may come from lines that are not measured."""
    if coils > 1:
        place.draw(coils)
        place.rewrite(acquisition="multi_coil", coils=[coils])
    case = sorted(place.cases.glob("*.h5"))[0]
    assert place.predict("--zero_filled", source=case) == 0
    first = _read(place.output / case.name)
    mask = _mask(place, case)
    with h5py.File(case, "a") as content:
        content["kspace"][...] = content["kspace"][()] * mask + 1e3 * (1 - mask)
    assert place.predict("--zero_filled", "--overwrite", source=case) == 0
    np.testing.assert_allclose(_read(place.output / case.name), first, rtol=1e-5)
