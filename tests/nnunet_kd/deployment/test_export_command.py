"""The command ``nnunet_kd export``: what it prints and which values it takes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd import cli


def test_the_summary_names_the_figures_and_the_next_command(
    make_model: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    bundle = tmp_path / "bundle"
    assert cli.main(["export", "-m", str(make_model(folds=("all",))), "-f", "all", "-o", str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {bundle} (" in printed
    assert "openvino, f32, folds all" in printed
    assert "8 patches, synthetic noise, because no case was at hand" in printed
    assert "f32: largest logit difference" in printed
    assert printed.strip().endswith(f"predict: nnunet_kd predict -i IMAGES -o PREDICTIONS -m {bundle}")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--tolerance", "2"), ("--max-drop", "-1"), ("--logit-tolerance", "inf"), ("--patches", "0")],
        *[("--threads", "x"), ("--format", "tensorrt"), ("--precision", "fp16"), ("-f", "first")],
    ],
)
def test_values_out_of_range_are_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["export", "-m", "model", "-o", "bundle", option, value])
    assert option in capsys.readouterr().err.splitlines()[-1]
