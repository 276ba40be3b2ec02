"""The HLFD paper's scores against counts by hand, and how a report labels them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nnunet_kd.cli import main
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation import command
from nnunet_kd.evaluation.hlfd_scores import METRICS, SCORES, overlap_scores, score_files
from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.markdown import finding
from nnunet_kd.evaluation.report import FILES, Comparison, compare
from nnunet_kd.evaluation.score_sets import SCORE_SETS, score_set
from nnunet_kd.evaluation.statistics import Difference, Resampling

SaveLabels = Callable[..., Path]
Save = Callable[..., tuple[Path, Path]]
LABELS = {"background": 0, "kidney": 1, "tumor": 2}
BOTH = (Structure(name="both", labels=(1, 2)), Structure(name="tumor", labels=(2,)))


@pytest.mark.parametrize(
    ("common", "predicted", "true", "expected"),
    [
        (3, 5, 4, (7 / 10, 4 / 9, 1 / 4)),
        (4, 4, 4, (1, 0, 0)),
        (0, 0, 4, (1 / 5, 0, -1)),  # what is missed costs no VOE, and an empty prediction has a Dice
        (0, 2, 4, (1 / 7, 2 / 3, -1 / 2)),
        (1, 9, 1, (3 / 11, 8 / 5, 8)),  # VOE above 1
        (0, 5, 0, (np.nan, np.nan, np.nan)),
    ],
)
def test_scores_are_those_counted_by_hand(common: int, predicted: int, true: int, expected: tuple[float, ...]) -> None:
    reference, prediction = np.zeros((2, 4, 5), dtype=bool)
    reference.flat[:true] = True
    prediction.flat[true - common : true - common + predicted] = True
    np.testing.assert_allclose(overlap_scores(reference, prediction), expected)


@pytest.fixture
def save(tmp_path: Path, save_labels: SaveLabels) -> Save:
    """Write a case of ten voxels: reference, prediction and its probabilities."""

    def write(
        reference: list[int],
        probabilities: list[list[float]],
        *,
        arm: str = "kd",
        case: str = "c0",
        labels: dict[str, Any] = LABELS,
    ) -> tuple[Path, Path]:
        array = np.array(probabilities, dtype=np.float32).reshape(len(probabilities), 1, 2, 5)
        regions = any(isinstance(value, list) for value in labels.values())
        painted = np.where(array[0] > 0.5, 1, 0) + (array[1] > 0.5) if regions else array.argmax(axis=0)
        truth = save_labels(tmp_path / "labels" / f"{case}.nii.gz", np.array(reference, np.uint8).reshape(1, 2, 5))
        prediction = save_labels(tmp_path / arm / f"{case}.nii.gz", painted.astype(np.uint8))
        np.savez_compressed(tmp_path / arm / f"{case}.npz", probabilities=array)
        dataset = {"labels": labels, **({"regions_class_order": [1, 2]} if regions else {})}
        for folder in (tmp_path, tmp_path / arm):
            (folder / "dataset.json").write_text(json.dumps(dataset))
        return truth, prediction

    return write


TRUTH = [1, 1, 1, 2, 2, 0, 0, 0, 0, 0]
# tumour: four voxels above 0.4, of which two true; both together: seven, all five true ones
KIDNEY = [0.9, 0.9, 0.3, 0.1, 0.5, 0.3, 0.0, 0.2, 0.4, 0.0]
TUMOR = [0.0, 0.0, 0.2, 0.8, 0.41, 0.5, 0.6, 0.1, 0.0, 0.4]


def test_a_structure_is_where_its_probability_is_above_the_threshold(save: Save) -> None:
    background = [1 - kidney - tumor for kidney, tumor in zip(KIDNEY, TUMOR, strict=True)]
    files = save(TRUTH, [background, KIDNEY, TUMOR])
    found = score_files(files, LabelScheme(structures=BOTH))
    np.testing.assert_allclose(found, [(11 / 13, 4 / 12, 7 / 5 - 1), (5 / 7, 4 / 6, 1)])
    assert (score_files(files, LabelScheme(structures=BOTH[:1])) == found[:1]).all()


def test_regions_are_scored_by_their_own_probability(save: Save) -> None:
    whole = [max(kidney, tumor) for kidney, tumor in zip(KIDNEY, TUMOR, strict=True)]
    files = save(TRUTH, [whole, TUMOR], labels={"background": 0, "both": [1, 2], "tumor": 2})
    # 0.3 and 0.2 do not add up: one true voxel less than in the test above
    np.testing.assert_allclose(
        score_files(files, LabelScheme(structures=BOTH)), [(9 / 12, 4 / 11, 6 / 5 - 1), (5 / 7, 4 / 6, 1)]
    )
    with pytest.raises(UsageError, match="expected a probability of 'kidney'"):
        score_files(files, LabelScheme(structures=(*BOTH, Structure(name="kidney", labels=(1,)))))


def test_ignored_voxels_do_not_count(save: Save) -> None:
    background = [1 - kidney - tumor for kidney, tumor in zip(KIDNEY, TUMOR, strict=True)]
    files = save([1, 1, 1, 2, 3, 3, 0, 0, 0, 0], [background, KIDNEY, TUMOR])
    # left of the tumour: one true voxel, found, and one false one
    np.testing.assert_allclose(score_files(files, LabelScheme(structures=BOTH, ignore=3))[1], (3 / 4, 2 / 3, 1))


# --- in a comparison ---


@pytest.fixture
def arms(save: Save, tmp_path: Path) -> Path:
    """Four cases and two arms; the last case has no tumour."""
    for number in range(4):
        truth = [1 if value == 2 and number == 3 else value for value in TRUTH]
        for arm, gain in (("student", 0.0), ("kd", 0.39)):
            tumor = [
                0.01 * number + (value if wanted == 2 else value * (1 - gain))
                for value, wanted in zip(TUMOR, TRUTH, strict=True)
            ]
            background = [1 - kidney - value for kidney, value in zip(KIDNEY, tumor, strict=True)]
            save(truth, [background, KIDNEY, tumor], arm=arm, case=f"c{number}")
    return tmp_path


@pytest.fixture
def comparison(arms: Path) -> Callable[..., Comparison]:
    def make(**settings: Any) -> Comparison:
        chosen = {name: [arms / name] for name in ("student", "kd")}
        base = {"reference": arms / "labels", "output": arms / "report", "scores": "hlfd", "n_processes": 1}
        return Comparison(**{"arms": chosen, "resampling": Resampling(n_resamples=200), **base, **settings})

    return make


def test_the_mean_is_over_cases_with_the_structure(comparison: Callable[..., Comparison]) -> None:
    report = compare(comparison())
    row = report.row("student", "tumor", "hlfd_rvd")
    assert row is not None
    assert row.mean.n_cases == 3
    assert row.mean.value == pytest.approx(
        (4 / 2 - 1 + 5 / 2 - 1 + 5 / 2 - 1) / 3
    )  # the voxel of 0.4 passes from c1 on
    kd = report.row("kd", "tumor", "hlfd_voe")
    assert kd is not None
    assert kd.difference is not None
    assert kd.difference.value < 0


def test_every_table_and_picture_says_whose_scores_they_are(
    comparison: Callable[..., Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.extend([self.get_suptitle(), self.axes[0].get_xlabel()])
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    asked = comparison()
    compare(asked)
    text = (asked.output / FILES["markdown"]).read_text()
    caution = "Scores: the HLFD paper's own, not comparable with challenge numbers"
    assert f"**{caution}.**" in text
    for heading in (
        "## Dice, HLFD's own (higher is better)",
        "## VOE, HLFD's own, non-standard (lower is better)",
        "## RVD, HLFD's own, signed (nearest to 0 is best)",
    ):
        assert heading in text
    assert "above 0.4" in text
    assert "HD95" not in text
    assert "nan" not in text
    assert drawn[0] == caution
    assert drawn[1].startswith("Dice, HLFD's own (mean over structures)")
    content = json.loads((asked.output / FILES["json"]).read_text())
    assert (content["score_set"], content["caution"]) == ("hlfd", caution)
    assert [metric["name"] for metric in content["metrics"]] == ["hlfd_dice", "hlfd_voe", "hlfd_rvd"]
    lines = (asked.output / FILES["csv"]).read_text().splitlines()
    assert len(lines) == 1 + 2 * 4 * 2 * 3
    assert all(",hlfd_" in line for line in lines[1:])


def test_nnunets_scores_need_no_caution_and_no_probabilities(comparison: Callable[..., Comparison], arms: Path) -> None:
    for file in arms.glob("*/*.npz"):
        file.unlink()
    asked = comparison(scores="nnunet")
    compare(asked)
    assert "HLFD" not in "".join((asked.output / FILES[kind]).read_text() for kind in ("markdown", "json", "csv"))
    assert "caution" not in json.loads((asked.output / FILES["json"]).read_text())


def _summary(arms: Path) -> None:
    for file in (arms / "kd").glob("c*"):
        file.unlink()
    case = {"prediction_file": "c0.nii.gz", "metrics": {"1": {"Dice": 0.5}, "2": {"Dice": 0.5}}}
    cases = [{**case, "prediction_file": f"c{number}.nii.gz"} for number in range(4)]
    (arms / "kd" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))


@pytest.mark.parametrize(
    ("breaks", "options", "said"),
    [
        (
            lambda arms: (arms / "kd" / "c2.npz").unlink(),
            [],
            "none for c2; predict again with nnUNetv2_predict --save_",
        ),
        (_summary, [], "got a summary for arm 'kd'"),
        (lambda arms: (arms / "kd" / "c1.npz").write_bytes(b""), [], "c1.npz"),
        (lambda arms: (arms / "kd" / "dataset.json").unlink(), [], "dataset.json that nnUNetv2_predict writes"),
        (
            lambda arms: (arms / "dataset.json").write_text('{"labels": {"background": 0, "cyst": 3}}'),
            [],
            "expected a probability of 'cyst'",
        ),
        (Path.exists, ["--tolerance", "2.0"], "--tolerance is of the surface Dice"),
        (Path.exists, ["--tolerance", "1.0", "tumor=2.0"], "--tolerance is of the surface Dice"),
    ],
    ids=["no npz", "summary", "broken npz", "no dataset.json", "other structures", "tolerance", "tolerances"],
)
def test_what_the_scores_lack_is_told_in_one_line_before_anything_is_scored(
    arms: Path,
    breaks: Callable[[Path], object],
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nnunet_kd.evaluation.report.score_arms", lambda *_, **__: pytest.fail("scored"))
    breaks(arms)
    given = ["--arm", f"student={arms / 'student'}", "--arm", f"kd={arms / 'kd'}", "--scores", "hlfd", *options]
    assert main(["compare", "--reference", str(arms / "labels"), *given, "-o", str(arms / "report")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (arms / "report").exists()


def test_every_set_can_be_named_and_no_other() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    (action,) = [action for action in parser._actions if action.dest == "scores"]
    assert tuple(action.choices or ()) == tuple(SCORE_SETS)
    assert [score_set(name).name for name in SCORE_SETS] == list(SCORE_SETS)
    assert score_set() is score_set("nnunet")
    with pytest.raises(UsageError, match="--scores, got 'other'"):
        score_set("other")


def test_a_signed_score_is_neither_better_nor_worse() -> None:
    assert SCORES.metrics == METRICS
    difference = Difference(value=0.2, low=0.1, high=0.3, n_cases=20, n_groups=20, p=0.01)
    assert finding("kd", "student", difference, METRICS[2]).endswith("the interval excludes 0: the arms differ.")
