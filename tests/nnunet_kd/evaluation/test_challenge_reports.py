"""Challenges' scores as they are typed, and what a report says of them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd.cli import main
from nnunet_kd.evaluation.report import FILES

Run = Callable[..., int]


@pytest.fixture
def run(arms: Path) -> Run:
    """Compare kd and student of the fixture, whose structures are called liver and tumor."""

    def compare(*options: str, labels: dict[str, int] | None = None) -> int:
        named = {"background": 0, **(labels or {"liver": 1, "tumor": 2})}
        (arms / "dataset.json").write_text(json.dumps({"labels": named}))
        given = [part for name in ("student", "kd") for part in ("--arm", f"{name}={arms / name}")]
        return main(["compare", "--reference", str(arms / "labels"), *given, "-o", str(arms / "report"), *options])

    return compare


def test_a_report_has_the_scores_of_all_cases_together(run: Run, arms: Path) -> None:
    """``--score`` is understood, too."""
    assert run("--score", "lits17", "-np", "1", "--arm", f"twice={arms / 'teacher'},{arms / 'labels'}") == 0
    content = json.loads((arms / "report" / FILES["json"]).read_text())
    assert content["score_set"] == "lits17"
    assert [(s["name"], s["labels"]) for s in content["structures"]] == [("liver", [1, 2]), ("lesion", [2])]
    assert [metric["name"] for metric in content["pooled_metrics"]][:2] == ["dice_global", "voe"]
    pooled = {(p["arm"], p["run"], p["class"], p["metric"]): p["value"] for p in content["pooled"]}
    assert pooled["twice", 1, "lesion", "dice_global"] == 1  # the reference against itself
    assert pooled["kd", 0, "liver", "recall"] is None
    assert 0 < pooled["student", 0, "liver", "dice_global"] < pooled["kd", 0, "liver", "dice_global"] < 1
    text = (arms / "report" / FILES["markdown"]).read_text()
    mean = (pooled["twice", 0, "lesion", "dice_global"] + 1) / 2
    assert f"| lesion | twice | {mean:.4f} |" in text.split("## All cases together")[1]
    assert len(content["scores"]) == 4 * 8 * 2 * 6


@pytest.mark.parametrize(
    ("options", "labels", "said"),
    [
        (["--scores", "kits23"], {"a": 1, "b": 2}, "--scores kits23"),
        (["--scores", "msd"], {"a": 1, "b": 2}, "Task10_Colon"),
        (["--scores", "lits17", "--tolerance", "2.0"], None, "--tolerance is of the surface Dice of --scores nnunet"),
        (["--scores", "acdc", "--arm", "old=summary.json"], {"RV": 1, "MYO": 2, "LV": 3}, "folders of predictions"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_scored(
    options: list[str],
    labels: dict[str, int] | None,
    said: str,
    run: Run,
    arms: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nnunet_kd.evaluation.report.score_arms", lambda *_, **__: pytest.fail("scored"))
    monkeypatch.chdir(arms)
    dice = {str(label): {"Dice": 0.5} for label in (1, 2, 3)}
    cases = [{"prediction_file": f"case_{n}.nii.gz", "metrics": dice} for n in range(8)]
    Path("summary.json").write_text(json.dumps({"metric_per_case": cases}))
    assert run(*options, labels=labels) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert said in error[0]
    assert not (arms / "report").exists()


@pytest.mark.parametrize(
    ("scores", "module", "labels"),
    [
        ("kits23", "surface_distance", {"kidney": 1, "tumor": 2, "cyst": 3}),
        ("brats2023", "cc3d", {"edema": 1, "necrosis": 2, "enhancing tumor": 3}),
    ],
)
def test_a_missing_library_is_one_line(
    scores: str,
    module: str,
    labels: dict[str, int],
    run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert run("--scores", scores, labels=labels) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert f"expected the library {module}, got" in error[0]
    assert error[0].endswith("; type: pip install 'nnunet-kd[scores]'")


def test_the_default_report_says_nothing_of_challenges(run: Run, arms: Path) -> None:
    assert run("-np", "1") == 0
    content = json.loads((arms / "report" / FILES["json"]).read_text())
    assert not {"score_set", "pooled", "pooled_metrics"} & set(content)
    assert "All cases together" not in (arms / "report" / FILES["markdown"]).read_text()
