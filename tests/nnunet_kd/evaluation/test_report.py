"""A comparison from folders to files."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation import report as report_module
from nnunet_kd.evaluation.arms import FOREGROUND
from nnunet_kd.evaluation.markdown import finding, p_equation, share_text, to_markdown
from nnunet_kd.evaluation.report import COLUMNS, FILES, Comparison, Report, compare
from nnunet_kd.evaluation.scores import METRICS
from nnunet_kd.evaluation.statistics import Difference, Estimate, Resampling, paired_difference, share_of_gap

QUICK = Resampling(n_resamples=300)


@pytest.fixture
def comparison(arms: Path) -> Callable[..., Comparison]:
    def make(*names: str, **settings: Any) -> Comparison:
        chosen = {name: [arms / name] for name in names or ("teacher", "student", "kd")}
        base = {"reference": arms / "labels", "output": arms / "report", "resampling": QUICK, "n_processes": 1}
        return Comparison(**{"arms": chosen, **base, **settings})

    return make


def read_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / FILES["json"]).read_text(), parse_constant=pytest.fail)
    return content


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / FILES["csv"]).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_four_files_are_written(comparison: Callable[..., Comparison]) -> None:
    asked = comparison()
    compare(asked)
    assert sorted(file.name for file in asked.output.iterdir()) == sorted(FILES.values())
    assert (asked.output / FILES["plot"]).read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in asked.output.parent.iterdir() if p.name.startswith(".")] == []


def test_the_rows_are_the_statistics_of_the_scores(comparison: Callable[..., Comparison]) -> None:
    report = compare(comparison())
    for metric in ("dice", "hd95", "surface_dice"):
        values = {name: arm.per_case(FOREGROUND, metric) for name, arm in report.arms.items()}
        row = report.row("kd", FOREGROUND, metric)
        assert row is not None
        assert row.difference == paired_difference(values["kd"], values["student"], resampling=QUICK)
        assert row.share == share_of_gap(values["kd"], values["student"], values["teacher"], resampling=QUICK)
    better = report.row("kd", FOREGROUND, "dice")
    worse = report.row("kd", FOREGROUND, "hd95")
    assert better is not None
    assert better.difference is not None
    assert better.difference.low > 0  # the arms were made so: see the fixture
    assert worse is not None
    assert worse.difference is not None
    assert worse.difference.high < 0


def test_json_and_csv_tell_the_same_and_lose_nothing(comparison: Callable[..., Comparison]) -> None:
    asked = comparison()
    report = compare(asked)
    content, lines = read_json(asked.output), read_csv(asked.output)
    assert len(lines) == len(content["scores"]) == 3 * 8 * 2 * 3
    for line, score in zip(lines, content["scores"], strict=True):
        assert tuple(line) == tuple(score) == COLUMNS
        assert (line["arm"], line["case"], line["class"], line["metric"]) == tuple(
            score[key] for key in ("arm", "case", "class", "metric")
        )
        assert float(line["value"]) == score["value"]
    for row in content["rows"]:
        values = [
            float(line["value"])
            for line in lines
            if (line["arm"], line["metric"]) == (row["arm"], row["metric"])
            and row["structure"] in (line["class"], FOREGROUND)
        ]
        assert row["mean"]["value"] == pytest.approx(np.mean(values))
    assert content["rows"][0]["mean"]["value"] == report.rows[0].mean.value


def test_identical_arms_differ_by_0_with_p_1(comparison: Callable[..., Comparison], arms: Path) -> None:
    twin = shutil.copytree(arms / "kd", arms / "twin")
    report = compare(comparison(arms={"student": [twin], "kd": [arms / "kd"]}))
    for row in report.rows:
        if row.arm == "kd":
            assert row.difference is not None
            assert (row.difference.value, row.difference.low, row.difference.high, row.difference.p) == (0, 0, 0, 1)
    assert "the interval contains 0: no difference was found" in to_markdown(report)


def test_runs_are_averaged_and_their_spread_is_reported(comparison: Callable[..., Comparison], arms: Path) -> None:
    three = [arms / name for name in ("teacher", "kd", "student")]
    report = compare(comparison(arms={"student": [shutil.copytree(arms / "student", arms / "copy")], "kd": three}))
    single = [compare(comparison(name, output=arms / f"r_{name}")) for name in ("teacher", "kd", "student")]
    means = [rows.rows[0].mean.value for rows in single]
    row = report.row("kd", FOREGROUND, "dice")
    assert row is not None
    assert row.mean.value == pytest.approx(np.mean(means))
    assert row.spread.means == pytest.approx(means)
    assert row.spread.standard_deviation == pytest.approx(np.std(means, ddof=1))
    assert {line["run"] for line in read_csv(arms / "report") if line["arm"] == "kd"} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (("teacher", "student", "kd"), (None, None), ("student", "teacher")),
        (("kd", "teacher"), (None, None), ("kd", "teacher")),
        (("kd", "student"), ("kd", "student"), ("kd", "student")),
        (("student", "kd"), (None, None), ("student", None)),
    ],
)
def test_baseline_and_teacher_are_found(
    comparison: Callable[..., Comparison],
    names: tuple[str, ...],
    given: tuple[str | None, str | None],
    expected: tuple[str, str | None],
) -> None:
    report = compare(comparison(*names, baseline=given[0], teacher=given[1]))
    assert (report.baseline, report.teacher) == expected
    shares = {row.arm for row in report.rows if row.share is not None}
    assert shares == (set(names) - set(expected) if expected[1] else set())


def test_distances_are_not_available_from_a_summary(
    comparison: Callable[..., Comparison], arms: Path, stock_summary: Callable[..., Path]
) -> None:
    summary = stock_summary(arms / "labels", arms / "kd", arms / "kd.json")
    report = compare(comparison(arms={"student": [arms / "student"], "kd": [summary]}))
    row = report.row("student", "1", "hd95")
    assert row is not None
    assert np.isfinite(row.mean.value)
    assert report.row("kd", "1", "hd95") is None
    assert "| 1 | kd | not available |" in to_markdown(report)


def test_patients_are_resampled_when_they_are_named(comparison: Callable[..., Comparison]) -> None:
    patients = {f"case_{number}": number // 2 for number in range(8)}
    report = compare(comparison(patients=patients))
    assert report.n_patients == 4
    assert {row.mean.n_groups for row in report.rows} == {4}
    assert "resamples of 4 patients" in to_markdown(report)
    del patients["case_3"]
    with pytest.raises(UsageError, match="case_3"):
        compare(comparison(patients=patients, overwrite=True))


def test_structures_absent_everywhere_are_null_in_json_and_empty_in_csv(
    comparison: Callable[..., Comparison], arms: Path
) -> None:
    (arms / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "b": 2, "never": 3}}))
    asked = comparison()
    compare(asked)
    assert {line["value"] for line in read_csv(asked.output) if line["class"] == "never"} == {""}
    rows = [row for row in read_json(asked.output)["rows"] if row["structure"] == "never"]
    assert {row["mean"]["value"] for row in rows} == {None}
    assert {row["mean"]["reason"] for row in rows} == {"no case has a value"}
    assert f"| {FOREGROUND} | teacher | 0." in (asked.output / FILES["markdown"]).read_text()


def test_the_markdown_says_how_its_numbers_were_made(comparison: Callable[..., Comparison]) -> None:
    asked = comparison(tolerances={"2": 2.5})
    compare(asked)
    text = (asked.output / FILES["markdown"]).read_text()
    for said in ("8 cases", "BCa bootstrap, 300 resamples of cases, seed 0", "**not corrected**", "within 1 or 2.5 mm"):
        assert said in text
    assert "nan" not in text


# --- writing ---


def test_a_report_is_replaced_only_when_told(comparison: Callable[..., Comparison]) -> None:
    compare(comparison())
    with pytest.raises(UsageError, match="--overwrite"):
        compare(comparison())
    compare(comparison("kd", overwrite=True))
    assert list(read_json(comparison().output)["arms"]) == ["kd"]


def test_a_folder_with_other_files_is_never_replaced(comparison: Callable[..., Comparison], arms: Path) -> None:
    with pytest.raises(UsageError, match="holds other things than a report"):
        compare(comparison(output=arms / "kd", overwrite=True))
    assert len(list((arms / "kd").iterdir())) == 8


def test_nothing_is_written_when_a_writer_fails(
    comparison: Callable[..., Comparison], arms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(comparison())
    before = read_json(arms / "report")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module, "write_scores", fail)
    with pytest.raises(UsageError, match="No space left"):
        compare(comparison("kd", overwrite=True))
    assert read_json(arms / "report") == before
    assert not list(arms.glob(".report*"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"baseline": "nobody"}, "--baseline names 'nobody'"),
        ({"teacher": "nobody"}, "--teacher names 'nobody'"),
        ({"models": {"nobody": Path()}}, "--model names nobody"),
        ({"images": Path()}, "--images times models"),
        ({"arms": {}}, "--arm"),
        ({"tolerances": {"liver": 1.0}}, "liver"),
        ({"models": {"kd": Path("no/where")}}, "no/where"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_scored(
    comparison: Callable[..., Comparison], settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "score_arms", lambda *_, **__: pytest.fail("scored"))
    asked = comparison(**settings)
    with pytest.raises(UsageError, match=said):
        compare(asked)
    assert not asked.output.exists()


def test_a_folder_counts_once(comparison: Callable[..., Comparison], arms: Path) -> None:
    with pytest.raises(UsageError, match="in arm 'kd' twice"):
        compare(comparison(arms={"kd": [arms / "kd", arms / "labels" / ".." / "kd"]}))
    with pytest.raises(UsageError, match="in arms 'student' and 'kd'"):
        compare(comparison(arms={"student": [arms / "kd"], "kd": [arms / "kd"]}))


# --- wording ---


@pytest.mark.parametrize(
    ("value", "low", "high", "metric", "said"),
    [
        (0.01, 0.005, 0.02, 0, "kd is better"),
        (-0.01, -0.02, -0.005, 0, "kd is worse"),
        (-1.0, -2.0, -0.5, 1, "kd is better"),
        (0.01, -0.005, 0.02, 0, "no difference was found"),
        (0.01, float("nan"), float("nan"), 0, "too few cases"),
    ],
)
def test_a_finding_says_better_worse_or_nothing(value: float, low: float, high: float, metric: int, said: str) -> None:
    difference = Difference(value=value, low=low, high=high, n_cases=19, n_groups=15, p=0.01)
    sentence = finding("kd", "student", difference, METRICS[metric])
    assert said in sentence
    assert "p = 0.01, 19 cases" in sentence
    assert "too narrow" not in sentence


def test_intervals_from_few_patients_are_called_too_narrow() -> None:
    difference = Difference(value=0.01, low=0.005, high=0.02, n_cases=19, n_groups=14, p=0.01)
    assert "(of 14 only: too narrow)" in finding("kd", "student", difference, METRICS[0])


@pytest.mark.parametrize(("n_groups", "ending"), [(5, "which needs 6 at least."), (6, "kd is better.")])
def test_a_few_cases_give_no_verdict(n_groups: int, ending: str) -> None:
    difference = Difference(value=0.2, low=0.1, high=0.3, n_cases=9, n_groups=n_groups, p=0.06)
    assert finding("kd", "student", difference, METRICS[0]).endswith(ending)


def test_numbers_are_written_without_false_signs() -> None:
    def share(value: float, low: float, high: float) -> str:
        return share_text(Estimate(value=value, low=low, high=high, n_cases=9, n_groups=9))

    assert share(0.554, 0.4, 0.7) == "55% [40%, 70%]"
    assert share(-1e-9, -0.001, 0.001) == "0% [0%, 0%]"
    assert share(float("nan"), 0.0, 0.0) == share_text(None) == "-"
    assert (p_equation(0.0312), p_equation(1e-7)) == ("p = 0.031", "p < 0.0001")


def test_the_report_finds_rows_by_name(comparison: Callable[..., Comparison]) -> None:
    report = compare(comparison("kd"))
    assert isinstance(report, Report)
    assert report.row("kd", "1", "dice") is not None
    assert report.row("kd", "nothing", "dice") is None
