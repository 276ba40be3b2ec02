"""Claims about ``nnunet_kd plan`` within a budget, through the program in this process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.cli import main
from nnunet_kd.deployment import budget_measure
from nnunet_kd.planning import budget_command, candidates
from nnunet_kd.planning.budget_search import STAGES, Measurement

PlanWithin = Callable[..., int]
NAME = "nnUNetKDPlans"


@pytest.fixture
def plan_within(site: Any, teacher: Path) -> PlanWithin:
    def run(*options: str, with_teacher: bool = True) -> int:
        arguments = ["plan", "-d", "900", "-c", "3d_fullres", "-p", NAME, "--threads", "1"]
        arguments += ["--teacher", str(teacher)] if with_teacher else ["--method", "none"]
        return main([*arguments, *options])

    return run


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace measuring by a cost that rises with the features of the first stage; the list is of what was measured."""
    order: list[str] = []

    def measure(model: Any, case: Any, machine: Any) -> Measurement:
        settings = model.plans["configurations"][model.configuration]
        kwargs = settings["architecture"]["arch_kwargs"]
        work = kwargs["features_per_stage"][0] * kwargs["n_conv_per_stage"][0] / settings["spacing"][0] ** 3
        order.append(json.dumps([kwargs["features_per_stage"], kwargs["n_conv_per_stage"], settings["spacing"]]))
        return Measurement(
            stages=dict.fromkeys(STAGES, 0.0),
            tile_seconds=work,
            n_tiles=1,
            start_up=1.0,
            peak_megabytes=1000.0,
            file_megabytes=work / 10,
        )

    pytest.importorskip("openvino")
    monkeypatch.setattr(budget_command, "measure_student", measure)
    monkeypatch.setattr(candidates, "WIDTHS", (1, 2))
    return order


def written(site: Any) -> list[str]:
    return sorted(path.name for path in (site.preprocessed / site.dataset).glob(f"{NAME}*"))


def test_a_real_search_measures_this_machine_and_comes_to_the_same_student_again(
    site: Any, plan_within: PlanWithin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(candidates, "WIDTHS", (1, 2))
    monkeypatch.setattr(candidates, "FEWER_STAGES", (0,))
    monkeypatch.setattr(budget_measure, "ENOUGH_SECONDS", 0.0)
    assert plan_within("--max-seconds", "100", "--max-megabytes", "0.2", "--epochs", "3") == 0
    output = capsys.readouterr().out
    folder = site.preprocessed / site.dataset
    first = site.plans(NAME)
    assert first["kd"]["configurations"]["3d_fullres"]["budget"]["num_epochs"] == 3
    assert written(site) == [f"{NAME}.json", f"{NAME}_3d_fullres_budget.md", f"{NAME}_3d_fullres_budget.png"]
    entries = json.loads((folder / "nnunet_kd_measurements.json").read_text())["measurements"].values()
    assert len(entries) == output.count("measured: ") - 1
    for entry in entries:
        found = entry["found"]
        assert found["n_tiles"] >= 1
        assert all(found["stages"][stage] >= 0 for stage in STAGES)
        assert min(found["stages"]["load"], found["tile_seconds"], found["stages"]["write"], found["start_up"]) > 0
        assert 50 < found["peak_megabytes"] < 2000
        assert 0.02 < found["file_megabytes"] < 5
    assert "chosen" in output
    assert str(site.root) not in (folder / f"{NAME}_3d_fullres_budget.md").read_text()

    monkeypatch.setattr(budget_command, "measure_student", lambda *_: pytest.fail("measured again"))
    assert plan_within("--max-seconds", "100", "--max-megabytes", "0.2", "--epochs", "3", "--overwrite") == 0
    assert site.plans(NAME) == first
    assert ", 0 now; " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("limits", "features"),
    [
        (("--max-seconds", "4"), 4),
        (("--max-seconds", "8"), 8),
        (("--max-seconds", "1000"), 8),
        (("--max-megabytes", "0.4"), 4),
        (("--max-seconds", "8", "--max-memory", "1G"), 8),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
@pytest.mark.usefixtures("measured")
def test_the_widest_student_within_the_budget_is_planned(
    site: Any, plan_within: PlanWithin, limits: tuple[str, ...], features: int
) -> None:
    assert plan_within(*limits) == 0
    student = site.plans(NAME)["configurations"]["3d_fullres"]
    assert student["architecture"]["arch_kwargs"]["features_per_stage"][0] == features
    assert student["data_identifier"] == "nnUNetPlans_3d_fullres"  # at the teacher's spacing nothing is preprocessed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--max-seconds", "0.5"), "takes 4 s, 1000 MB of memory, a file of 0.4 MB on case"),
        (("--max-memory", "500M"), "no student keeps the budget of at most 500 MB of memory; the nearest"),
        (("--max-megabytes", "0.001"), "has weights of"),
    ],
    ids=["seconds", "memory", "megabytes"],
)
@pytest.mark.usefixtures("measured")
def test_a_budget_out_of_reach_writes_no_plans_and_names_the_nearest(
    site: Any, plan_within: PlanWithin, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
) -> None:
    assert plan_within(*options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert written(site) == []


def test_with_preprocessing_of_its_own_coarser_spacing_is_searched_too(
    site: Any, plan_within: PlanWithin, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = site.plans("nnUNetPlans")["configurations"]["3d_fullres"]
    assert plan_within("--max-seconds", "0.6", "--own-preprocessing", "--teacher-outputs", "cached") == 0
    student = site.plans(NAME)["configurations"]["3d_fullres"]
    factor = student["spacing"][0] / before["spacing"][0]
    assert factor == 2
    assert student["data_identifier"] == "nnUNetPlans_3d_fullres_x2"
    assert all(ours <= theirs for ours, theirs in zip(student["patch_size"], before["patch_size"], strict=True))
    assert f"nnUNetv2_preprocess -d {site.dataset} -plans_name {NAME} -c 3d_fullres" in capsys.readouterr().out
    assert len(measured) == len(set(measured))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--shrink", "2", "--max-seconds", "2"), "--shrink and --max-seconds exclude each other"),
        (("--depth", "3", "--max-memory", "2G"), "--depth and --max-memory exclude each other"),
        (("--show-taps", "--max-megabytes", "2"), "--show-taps and --max-megabytes exclude each other"),
        (("--max-seconds", "0"), "--max-seconds: expected a number above 0, got 0"),
        (("--max-seconds", "nan"), "--max-seconds: expected a number above 0, got nan"),
        (("--max-memory", "2"), "--max-memory: expected an amount above 0 with its unit"),
        (("--max-seconds", "2", "--own-preprocessing"), "type --teacher-outputs cached too"),
        (("--measure-again",), "--measure-again belongs to a search within a budget"),
        (("--max-seconds", "2", "--budget-case", "nowhere.nii.gz"), "found none at nowhere.nii.gz"),
        (("--on", "cpu"), "--on belongs to a search within a budget"),
        (("--max-seconds", "2", "--threads", "0"), "--threads: expected at least 1, got 0"),
        (("--max-seconds", "2", "--own-preprocessing", "--teacher-outputs", "cached", "--geometry", "heart"), "fixes"),
    ],
    ids=lambda value: " ".join(value).replace("--", "") if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("measured")
def test_options_that_exclude_each_other_are_one_line(
    site: Any, plan_within: PlanWithin, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], reason: str
) -> None:
    assert plan_within(*options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert written(site) == []


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("raw", "set nnUNet_raw, or name an image with --budget-case"),
        ("print", "type: nnUNetv2_extract_fingerprint -d 900"),
        ("cases", "knows 6 cases"),
        ("openvino", "pip install 'nnunet-kd[openvino]'"),
    ],
)
@pytest.mark.usefixtures("measured")
def test_what_is_missing_for_measuring_is_one_line(
    site: Any, plan_within: PlanWithin, capsys: pytest.CaptureFixture[str], missing: str, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    raw, preprocessed = site.raw / site.dataset, site.preprocessed / site.dataset
    if missing == "raw":
        (raw / "imagesTr").rename(raw / "elsewhere")
    elif missing == "print":
        (preprocessed / "dataset_fingerprint.json").unlink()
    elif missing == "cases":
        next((raw / "imagesTr").iterdir()).unlink()
    else:
        monkeypatch.setitem(sys.modules, "openvino", None)
    assert plan_within("--max-seconds", "2") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert written(site) == []


def test_the_help_of_plan_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nnunet_kd.cli import main\ntry:\n    main(['plan', '--help'])\nexcept SystemExit:\n    pass\n"
    )
    check = "print([n for n in ('torch', 'numpy', 'nnunetv2', 'openvino', 'matplotlib') if n in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "[]"
    assert "--max-seconds" in finished.stdout
