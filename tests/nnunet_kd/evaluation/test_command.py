"""``nnunet_kd compare`` as it is typed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd.cli import main
from nnunet_kd.evaluation.report import FILES

Run = Callable[..., int]


@pytest.fixture
def run(arms: Path) -> Run:
    def compare(*options: str, names: tuple[str, ...] = ("teacher", "student", "kd")) -> int:
        given = [part for name in names for part in ("--arm", f"{name}={arms / name}")]
        return main(["compare", "--reference", str(arms / "labels"), *given, "-o", str(arms / "report"), *options])

    return compare


def test_a_report_is_written_and_its_tables_are_printed(
    run: Run, arms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--tolerance", "2.0", "1=0.5", "--seed", "3", "-np", "1") == 0
    printed = capsys.readouterr().out
    assert "# teacher / student / kd over 8 cases" in printed
    assert f"report: {arms / 'report'}" in printed
    content = json.loads((arms / "report" / FILES["json"]).read_text())
    assert [structure["tolerance"] for structure in content["structures"]] == [0.5, 2.0]
    assert content["intervals"]["seed"] == 3


def test_several_runs_chosen_cases_and_patients_are_understood(run: Run, arms: Path) -> None:
    (arms / "cases.txt").write_text("case_1\ncase_2\n\ncase_5\n")
    (arms / "patients.json").write_text(json.dumps({f"case_{number}": number % 2 for number in range(8)}))
    copies = [shutil.copytree(arms / name, arms / f"{name}_again") for name in ("kd", "teacher")]
    runs = f"both={copies[0]},{copies[1]}"
    assert run("--arm", runs, "--cases", str(arms / "cases.txt"), "--patients", str(arms / "patients.json")) == 0
    content = json.loads((arms / "report" / FILES["json"]).read_text())
    assert content["cases"] == ["case_1", "case_2", "case_5"]
    assert len(content["arms"]["both"]["runs"]) == 2
    assert content["n_patients"] == 2


def test_models_and_images_fill_the_cost_table(
    run: Run,
    arms: Path,
    write_model: Callable[..., Path],
    images: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fake(arm: str, _: object) -> dict[str, object]:
        seconds = [[0.1, 4.0 if arm == "teacher" else 1.0, 0.1]]
        return {"seconds": seconds, "peak_megabytes": 600.0, "megabytes_before": 400.0, "threads": 2}

    monkeypatch.setattr("nnunet_kd.evaluation.timing._in_child", fake)  # test_timing.py runs the real one
    teacher, kd = write_model("nnUNetPlans", 16), write_model("nnUNetKDPlans", 4)
    options = [
        "--model",
        f"teacher={teacher}",
        "--model",
        f"kd={kd}",
        "--images",
        str(images),
        "-f",
        "0",
        "--disable_tta",
    ]
    assert run(*options) == 0
    content = json.loads((arms / "report" / FILES["json"]).read_text())
    assert content["costs"]["teacher"]["macs"] > 4 * content["costs"]["kd"]["macs"]
    assert content["timings"]["kd"]["seconds_per_case"] == pytest.approx(1.2)
    assert content["timings"]["kd"]["mirroring"] is False
    printed = capsys.readouterr().out
    assert "| arm | parameters | GMAC per patch |" in printed
    assert "No --model was given for student." in printed
    assert "2 threads, mirroring off, folds: teacher 1, kd 1" in printed
    assert f"in the minute before: {content['timings']['kd']['load']:.1f}" in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arm", "kd"], "--arm NAME=PATH"),
        (["--arm", "kd=somewhere"], "twice"),
        (["--arm", "new=/no/where"], "/no/where"),
        (["--baseline", "nobody"], "nobody"),
        (["--tolerance", "wide"], "--tolerance"),
        (["--tolerance", "liver=1"], "liver"),
        (["--cases", "/no/list"], "/no/list"),
        (["--patients", "/no/list"], "/no/list"),
        (["--model", "kd=/no/model"], "/no/model"),
        (["--images", "/no/images"], "--model"),
        (["-f", "first"], "first"),
        (["-np", "0"], "-np"),
        (["--seed", "-1"], "--seed"),
        (["--cases", sys.executable], "text file"),
        (["--arm", "new=,"], "--arm new=FOLDER"),
        (["--arm", "a|b=x"], "printable"),
        (["--arm", "a\nb=x"], "printable"),
        (["--arm", " =x"], "without spaces"),
        (["--scores", "msd", "--tolerance", "1"], "takes none"),
        (["-o", "/dev/null/report"], "cannot write"),
        (["--dataset-json", "/no/dataset.json"], "/no/dataset.json"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    run: Run, arms: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("nnunet_kd compare: ")
    assert said in error[0]
    assert not (arms / "report").exists()


def test_other_cases_and_other_grids_are_refused_by_name_in_one_line(
    run: Run, arms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (arms / "kd" / "case_2.nii.gz").unlink()
    (arms / "student" / "case_4.nii.gz").rename(arms / "student" / "stray.nii.gz")
    assert run() == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    for said in ("case_2", "case_4", "stray", "'kd'", "'student'"):
        assert said in error[0]


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from nnunet_kd.evaluation import command; import argparse; p = argparse.ArgumentParser();"
        "command.add_arguments(p); p.format_help();"
        "sys.exit(bool({'torch', 'nnunetv2', 'monai', 'matplotlib', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    environment = {"NNUNET_KD_AUTOLOAD": "0"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
