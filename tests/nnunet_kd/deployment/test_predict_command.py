"""``nnunet_kd predict``: nnU-Net's folders, a line per faulty case, nothing half-written, and no torch."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_kd import cli
from nnunet_kd.deployment import predictor
from nnunet_kd.deployment.inference import readers
from nnunet_kd.errors import UsageError

MakeBundle = Callable[..., Path]
WriteImages = Callable[..., Path]
HEAVY = ("torch", "nnunetv2", "batchgenerators", "monai", "acvl_utils", "matplotlib", "pandas", "dask", "distributed")


def predict(images: Path | str, output: Path, bundle: Path, *arguments: str) -> int:
    places = ["-i", str(images), "-o", str(output), "-m", str(bundle)]
    return cli.main(["predict", *places, "--threads", "1", "--disable_progress_bar", *arguments])


def label_maps(folder: Path) -> set[str]:
    return {path.name.removesuffix(".nii.gz") for path in folder.rglob("*") if path.name.endswith(".nii.gz")}


def record(folder: Path, name: str = "predict.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def test_a_folder_is_predicted_as_nnunet_names_it(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = write_images("a_0000", "b_0000"), tmp_path / "deep" / "out"
    assert predict(images, out, make_bundle()) == 0
    assert {path.name for path in out.iterdir()} == {
        *("a.nii.gz", "b.nii.gz"),
        *("dataset.json", "plans.json", "predict.json"),
    }
    voxels = nib.load(images / "b_0000.nii.gz").get_fdata()
    np.testing.assert_array_equal(nib.load(out / "b.nii.gz").get_fdata() > 0, abs(voxels) > 1)
    written = record(out)
    assert written["finished"] is True
    assert set(written["cases"]["a"]["seconds"]) == {"read", "prepare", "network", "resample", "write"}
    assert len(written["identity"]["model_sha256"]) == 64
    assert str(tmp_path) not in (out / "predict.json").read_text()
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "high": 1, "low": 2}
    assert "mirroring off" in capsys.readouterr().out


@pytest.mark.parametrize("separator", [" ", ","])
def test_one_case_from_its_files(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, separator: str
) -> None:
    images, mask = write_images("a_0000", "a_0001"), tmp_path / "mask.nii.gz"
    bundle = make_bundle(channel_names=("T1", "T2"))
    files = separator.join(str(images / f"a_000{channel}.nii.gz") for channel in range(2)).split(" ")
    assert cli.main(["predict", "-i", *files, "-o", str(mask), "-m", str(bundle)]) == 0
    assert nib.load(mask).shape == (12, 10, 9)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "bundle", "mask.nii.gz"}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:300])


def put(shape: tuple[int, ...], value: float = 0.5) -> Callable[[Path], None]:
    return lambda file: nib.save(nib.Nifti1Image(np.full(shape, value, dtype=np.float32), np.eye(4)), file)


def squeeze(file: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), dtype=np.float32), np.diag([1e-3, 1, 1, 1])), file)


def remove_last(file: Path) -> None:
    file.rename(file.with_name("bad_0001.nii.gz"))


def add_channel(file: Path) -> None:
    file.with_name("bad_0001.nii.gz").write_bytes(file.read_bytes())


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "cannot read .*copy the file again"),
    "text": (lambda file: file.write_text("no image") and None, "cannot read"),
    "nan": (put((9, 9, 9), np.nan), "not finite"),
    "planar": (put((9, 9)), "expected a volume for a 3-D model"),
    "thin": (squeeze, "at least half the model's spacing"),
    "two_channels": (add_channel, "expected 1 channels"),
    "no_first_channel": (remove_last, "numbered from 0000"),
    "too_large_values": (put((9, 9, 9), 1e30), "too large"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_gets_its_line_and_the_others_their_masks(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, capsys: Any, fault: str
) -> None:
    damage, message = FAULTS[fault]
    images = write_images("a_0000", "bad_0000", "c_0000")
    damage(images / "bad_0000.nii.gz")
    assert predict(images, tmp_path / "out", make_bundle()) == 2
    assert label_maps(tmp_path / "out") == {"a", "c"}
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"  bad: .*{message}.*", lines[0])
    assert lines[1:] == [
        "nnunet_kd predict: 1 of 3 cases failed, named above; mend them and type --continue_prediction"
    ]
    assert "fault" in record(tmp_path / "out")["cases"]["bad"]
    assert not list((tmp_path / "out").glob(".*"))


def test_an_image_smaller_than_the_patch_is_predicted(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path
) -> None:
    assert predict(write_images("a_0000", shape=(5, 3, 7)), tmp_path / "out", make_bundle()) == 0
    assert nib.load(tmp_path / "out" / "a.nii.gz").shape == (5, 3, 7)


def test_a_full_disk_leaves_nothing_half_written(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def full(labels: Any, file: Path, geometry: Any) -> None:
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(readers.WRITE, "SimpleITKIO", full)
    images = write_images("a_0000", "b_0000")
    # the probabilities are written first, and must not stay behind alone
    assert predict(images, tmp_path / "out", make_bundle(), "--save_probabilities") == 2
    assert capsys.readouterr().err.count("No space left") == 2
    assert {path.suffix for path in (tmp_path / "out").rglob("*")} == {".json"}


def test_a_network_that_does_not_load_writes_nothing(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, monkeypatch: Any
) -> None:
    bundle = make_bundle()

    def refuse(*_: Any) -> None:
        raise UsageError("openvino cannot be imported")

    monkeypatch.setattr(predictor, "network_from_file", refuse)
    assert predict(write_images("a_0000"), tmp_path / "out", bundle) == 2
    assert not (tmp_path / "out").exists()


def test_predictions_are_continued_and_replaced_only_when_asked(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, capsys: Any
) -> None:
    images, out, bundle = write_images("a_0000", "b_0000", "c_0000"), tmp_path / "out", make_bundle()
    assert predict(images, out, bundle) == 0
    assert predict(images, out, bundle) == 2
    assert "--continue_prediction to keep or --overwrite" in capsys.readouterr().err
    whole = (out / "a.nii.gz").stat().st_mtime_ns
    (out / "b.nii.gz").write_bytes((out / "b.nii.gz").read_bytes()[:200])
    (out / "c.nii.gz").unlink()
    assert predict(images, out, bundle, "--continue_prediction") == 0
    assert "2 cases to predict, 1 are there" in capsys.readouterr().out
    assert (out / "a.nii.gz").stat().st_mtime_ns == whole
    assert nib.load(out / "b.nii.gz").get_fdata().shape == (12, 10, 9)
    assert set(record(out)["cases"]) == {"a", "b", "c"}
    assert predict(images, out, bundle, "--continue_prediction", "-step_size", "0.7") == 2
    assert "holds predictions with step_size 0.5" in capsys.readouterr().err
    assert predict(images, out, bundle, "--overwrite", "-step_size", "0.7") == 0
    assert (out / "a.nii.gz").stat().st_mtime_ns != whole


def test_an_interrupted_run_is_continued(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    images, out = write_images("a_0000", "b_0000", "c_0000"), tmp_path / "out"
    bundle = make_bundle()
    compute = predictor.Predictor.compute
    seen: list[Any] = []

    def interrupted(self: Any, prepared: Any, seconds: Any) -> Any:
        seen.append(prepared)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return compute(self, prepared, seconds)

    monkeypatch.setattr(predictor.Predictor, "compute", interrupted)
    assert predict(images, out, bundle) == 130
    assert label_maps(out) == {"a"}
    assert record(out)["finished"] is False
    assert not list(out.glob(".*"))
    assert "--continue_prediction" in capsys.readouterr().err
    assert predict(images, out, bundle, "--continue_prediction") == 0
    assert label_maps(out) == {"a", "b", "c"}


def test_parts_share_the_cases(make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path) -> None:
    images, bundle = write_images("a_0000", "b_0000", "c_0000"), make_bundle()
    for part, expected in ((1, {"b"}), (0, {"a", "b", "c"})):
        assert predict(images, tmp_path / "out", bundle, "-num_parts", "2", "-part_id", str(part)) == 0
        assert label_maps(tmp_path / "out") == expected
        assert record(tmp_path / "out", f"predict_part{part}of2.json")["finished"] is True


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, ["-f", "0"], "-f belongs to --backend torch"),
        ({}, ["-device", "cpu"], "-device belongs to --backend torch"),
        ({}, ["--backend", "onnx"], "exported for openvino"),
        ({}, ["-step_size", "2"], "at most 1"),
        ({}, ["-prev_stage_predictions", "."], "this model is none"),
        ({"previous_stage": "3d_lowres"}, [], "label maps of 3d_lowres"),
        ({"previous_stage": "3d_lowres"}, ["-prev_stage_predictions", "absent"], "found none at absent"),
        ({"mirror_axes": None}, ["--mirroring"], "without mirroring"),
        ({}, ["-num_parts", "2", "-part_id", "2"], "-part_id from 0"),
        ({}, ["--backend", "torch", "--resampling", "fast"], "--resampling belongs to bundles"),
    ],
    ids=["folds", "device", "onnx", "step", "no_cascade", "cascade", "no_stage", "mirroring", "part", "torch"],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    make_bundle: MakeBundle,
    write_images: WriteImages,
    tmp_path: Path,
    capsys: Any,
    changes: Any,
    arguments: list[str],
    message: str,
) -> None:
    assert predict(write_images("a_0000"), tmp_path / "out", make_bundle(**changes), *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def exported(make_model: Callable[..., Path], tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Return a function that exports a toy student and returns model folder and bundle."""

    def export(runtime: str) -> tuple[Path, Path]:
        pytest.importorskip("onnxruntime" if runtime == "onnx" else "openvino")
        model, bundle = make_model(), tmp_path / "bundle"
        arguments = ["-m", model, "-o", bundle, "--format", runtime, "--patches", "1", "--threads", "1"]
        assert cli.main(["export", *map(str, arguments)]) == 0
        return model, bundle

    return export


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_the_command_line_imports_neither_torch_nor_nnunet(
    exported: Callable[[str], tuple[Path, Path]], image_folder: Path, tmp_path: Path, runtime: str
) -> None:
    _, bundle = exported(runtime)
    places = ["-i", image_folder, "-o", tmp_path / "out", "-m", bundle, "--threads", "1"]
    command = [sys.executable, "-X", "importtime", "-m", "nnunet_kd", "predict", *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & set(HEAVY)
    assert label_maps(tmp_path / "out") == {"case_9"}


@pytest.mark.parametrize("mirroring", [False, True], ids=["plain", "mirrored"])
def test_label_maps_are_nnunets(
    exported: Callable[[str], tuple[Path, Path]], image_folder: Path, tmp_path: Path, mirroring: bool
) -> None:
    """At least 99.9 % of voxels, with OpenVINO; with nnU-Net's own predictor behind the verb all of them."""
    model, bundle = exported("openvino")
    values = np.random.default_rng(5).normal(size=(30, 26, 33)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([1.3, 0.7, 0.9, 1])), image_folder / "other_0000.nii.gz")
    stock = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0,))
    (tmp_path / "stock").mkdir()  # its sequential form makes none
    stock.predict_from_files_sequential(str(image_folder), str(tmp_path / "stock"))
    flags = ["--mirroring"] if mirroring else []
    assert predict(image_folder, tmp_path / "ours", bundle, *flags) == 0
    assert predict(image_folder, tmp_path / "torch", model, "--backend", "torch", "-f", "0", *flags) == 0
    for case in ("case_9", "other"):
        theirs, ours, again = (
            np.asarray(nib.load(tmp_path / folder / f"{case}.nii.gz").dataobj) for folder in ("stock", "ours", "torch")
        )
        assert len(np.unique(theirs)) > 1
        assert (ours == theirs).mean() >= 0.999
        np.testing.assert_array_equal(again, theirs)
