"""Bundles on disk: read back as written, and refused when anything in them is not as it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.deployment.bundle import WINDOW, Bundle, open_bundle, write_record
from nnunet_kd.deployment.inference.plan import make_inference_plan
from nnunet_kd.errors import UsageError


@pytest.fixture
def bundle(make_model: Callable[..., Path], tmp_path: Path) -> Bundle:
    """A bundle whose network is a file of no meaning."""
    model = make_model()
    plans, dataset = (json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json"))
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"weights")
    bundle = Bundle(
        path=folder,
        plan=make_inference_plan(plans, dataset, "3d_fullres", (0, 1)),
        runtime="onnx",
        precision="f32",
        folds=(0, "all"),
        window=WINDOW,
        versions={"torch": "2.5"},
        source={"model": "KDTrainer__nnUNetKDPlans__3d_fullres"},
    )
    write_record(bundle)
    return bundle


def change_record(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((bundle.path / "bundle.json").read_text())
    change(record)
    (bundle.path / "bundle.json").write_text(json.dumps(record))


def test_a_bundle_is_read_as_it_was_written(bundle: Bundle) -> None:
    assert open_bundle(bundle.path) == bundle
    assert bundle.input_shape == (1, 1, 16, 16, 16)
    assert bundle.megabytes == 7e-6


def test_the_hashes_of_all_files_are_checked(bundle: Bundle) -> None:
    (bundle.path / "parity.json").write_text("{}")
    write_record(bundle)
    (bundle.path / "parity.json").write_text("[]")
    with pytest.raises(UsageError, match=r"parity\.json was changed"):
        open_bundle(bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format=2), r"format 2, this version reads up to 1; type: pip install --upgrade"),
        (lambda record: record.update(format="1"), "expected a format number, got '1'"),
        (lambda record: record.update(runtime="tensorrt"), "runtime: expected one of openvino, onnx"),
        (lambda record: record.update(precision="fp16"), "precision: expected one of f32, bf16, int8"),
        (lambda record: record.pop("folds"), "is damaged .KeyError: 'folds'"),
        (lambda record: record.update(plan=[]), "expected a JSON object, got list"),
        (lambda record: record["plan"].pop("spacing"), "expected the key 'spacing'"),
        (lambda record: record["files"].clear(), "expected the hash of each file"),
        (lambda record: record["files"].update({"../x": {"sha256": "", "bytes": 0}}), r"got '\.\./x'"),
        (lambda record: record["files"].update({"more.txt": {"sha256": "", "bytes": 0}}), r"more\.txt, found none"),
    ],
    ids=["newer", "text", "runtime", "precision", "key", "plan", "spacing", "hashes", "outside", "missing"],
)
def test_a_record_that_is_not_ours_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_record(bundle, change)
    with pytest.raises(UsageError, match=message):
        open_bundle(bundle.path)


def test_a_network_of_equal_length_but_other_bytes_is_refused(bundle: Bundle) -> None:
    bundle.network.write_bytes(b"weighty")
    with pytest.raises(UsageError, match=r"model\.onnx was changed since it was exported"):
        open_bundle(bundle.path)


def test_a_model_folder_is_no_bundle(make_model: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"expected a bundle.*nnunet_kd export"):
        open_bundle(make_model())


def test_settings_of_the_window_that_an_older_record_lacks_are_the_defaults(bundle: Bundle) -> None:
    write_record(replace(bundle, window={"step_size": 0.75}))
    assert open_bundle(bundle.path).window == {**WINDOW, "step_size": 0.75}
