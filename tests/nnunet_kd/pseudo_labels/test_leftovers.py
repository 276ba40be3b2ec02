"""What lies where it is read again: only what was written there counts, and nothing of others is replaced."""

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.pseudo_labels.dataset import KEY, TABLE, is_ours
from nnunet_kd.pseudo_labels.labelling import finished


def test_a_data_set_with_something_beside_ours_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / TABLE).touch()
    (tmp_path / "dataset.json").write_text(json.dumps({KEY: {}}))
    assert is_ours(tmp_path)
    (tmp_path / "imagesTs").mkdir()
    assert not is_ours(tmp_path)


@pytest.mark.parametrize(
    ("change", "whole"),
    [({}, True), ({"confidence": None}, False), ({"disagreement": float("nan")}, False), ({"files": "other"}, False)],
)
def test_a_record_of_another_form_is_made_anew(change: dict[str, Any], whole: bool, tmp_path: Path) -> None:
    label = tmp_path / "a.nii.gz"
    label.write_bytes(b"label")
    record = {"confidence": 0.5, "disagreement": 0, "files": "f", "sha256": file_sha256(label)}
    (tmp_path / "a.json").write_text(json.dumps(record | change))
    assert (finished(tmp_path, "a", files="f", ending=".nii.gz") is not None) == whole
    (tmp_path / "a.json").write_text("[]")
    assert finished(tmp_path, "a", files="f", ending=".nii.gz") is None
