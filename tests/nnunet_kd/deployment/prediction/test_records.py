"""Claims about what is left beside predictions."""

from pathlib import Path

import pytest

from nnunet_kd.deployment.prediction.records import check_same_settings, read_cases, write_record
from nnunet_kd.errors import UsageError

IDENTITY = {"model_sha256": "a", "step_size": 0.5}


def test_other_settings_are_refused_but_a_torn_record_is_not_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "predict.json"
    write_record(file, IDENTITY, {"case": {}}, threads=1, seconds=1.0, finished=False)
    with pytest.raises(UsageError, match=r"step_size 0\.5, these would have 0\.7"):
        check_same_settings(tmp_path, {**IDENTITY, "step_size": 0.7})
    file.write_bytes(file.read_bytes()[:30])
    check_same_settings(tmp_path, IDENTITY)
    assert read_cases(file, IDENTITY) == {}
