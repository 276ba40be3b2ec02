"""The doctor finds each fault, names its cure and survives any broken installation."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import nnunet_kd.trainers
from nnunet_kd import cli, discovery, doctor

Findings = list[doctor.Finding]


@pytest.fixture(autouse=True)
def _three_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything is in order."""
    for variable in doctor.FOLDERS:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in (discovery.AUTOLOAD, "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], doctor.Finding]:
    """Return a function that runs ``code`` in place of the look-up and returns the first finding."""

    def run(code: str) -> doctor.Finding:
        monkeypatch.setattr(doctor, "_PROBE", code)
        return next(doctor.check_nnunet())

    return run


def _faults(findings: Findings) -> Findings:
    return [finding for finding in findings if finding.kind == "fault"]


def test_a_sound_installation_ends_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert report.endswith("no fault found\n")
    for name in nnunet_kd.trainers.__all__:
        assert f"nnU-Net finds {name} (nnunet_kd.trainers." in report
    assert "torch 2" in report
    assert "CPU: " in report


@pytest.mark.parametrize("variable", [discovery.AUTOLOAD, "TORCH_DEVICE_BACKEND_AUTOLOAD"])
def test_a_hook_that_is_switched_off_is_a_fault(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "0")
    discovery.register()  # as our own program does; nnU-Net's commands do not
    found = _faults(list(doctor.check_nnunet()))
    assert len(found) == len(nnunet_kd.trainers.__all__)
    assert f"unset {discovery.AUTOLOAD}" in found[0].cure
    assert [finding.cure for finding in doctor.check_hook()] == [f"unset {variable}"]


@pytest.mark.parametrize("value", [None, "/nowhere/at/all"])
def test_a_missing_folder_ends_with_status_1_and_its_cure(
    value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_PROBE", 'print(\'{"trainers": {}, "gpus": []}\')')
    monkeypatch.setenv("nnUNet_results", value) if value else monkeypatch.delenv("nnUNet_results")
    assert cli.main(["doctor"]) == 1
    report = capsys.readouterr().out
    assert "-> mkdir -p" in report
    assert report.endswith("1 fault found\n")


def test_a_folder_that_takes_no_files_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert len(_faults(list(doctor.check_folders()))) == len(doctor.FOLDERS)


def test_a_moved_checkout_is_recognised(probe: Callable[[str], doctor.Finding]) -> None:
    error = "Failed to load the backend extension: nnunet_kd. You can disable extension auto-loading with ..."
    finding = probe(f"raise RuntimeError({error!r})")
    assert (finding.kind, finding.cure) == ("fault", doctor.MOVED)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import nnunet_kd_that_is_not_there", "torch or nnU-Net cannot be imported"),
        ("raise ModuleNotFoundError(\"No module named 'nnunet_kd'\")", "cannot import nnunet_kd"),
        ("import os; os.abort()", "no message"),
    ],
)
def test_a_broken_dependency_is_reported_not_raised(
    probe: Callable[[str], doctor.Finding], code: str, text: str
) -> None:
    finding = probe(code)
    assert finding.kind == "fault"
    assert text in finding.text
    assert finding.cure


def test_another_trainer_of_the_same_name_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = nnunet_kd.trainers.__all__[0]
    lines = [
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer",
        f"class {name}(nnUNetTrainer): ...",
    ]
    (tmp_path / "their_trainer.py").write_text("\n".join(lines))
    monkeypatch.setenv(discovery.VARIABLE, str(tmp_path))
    finding = next(doctor.check_nnunet())
    assert (finding.kind, "their_trainer" in finding.text) == ("fault", True)


@pytest.mark.parametrize("code", ["{}[1]", "raise SystemExit(1)", "def broken("])
def test_a_broken_file_among_the_users_trainers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "their_trainer.py").write_text(code)
    monkeypatch.setenv(discovery.VARIABLE, str(tmp_path))
    finding = next(doctor.check_nnunet())
    assert (finding.kind, str(tmp_path / "their_trainer.py") in finding.text) == ("fault", True)
    assert finding.cure.startswith("mend that file")


def test_a_folder_of_trainers_that_is_gone_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, os.pathsep.join(["/gone", str(discovery.FOLDER)]))
    assert [finding.text.split()[2] for finding in doctor.check_hook()] == ["/gone,"]


def test_versions_that_do_not_fit_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["numpy>=999", "surely-not-installed>=1", "pytest>=999; extra == 'test'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: needed)
    cures = [finding.cure for finding in _faults(list(doctor.check_versions()))]
    assert cures == ["pip install 'numpy>=999'", "pip install 'surely-not-installed>=1'"]


def test_a_package_that_only_lies_there_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISTRIBUTION", "nnunet-kd-that-is-not-installed")
    assert _faults(list(doctor.check_versions()))[0].cure == doctor.INSTALL


def test_a_check_that_breaks_is_one_more_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBE", 'print(\'{"trainers": {}, "gpus": []}\')')
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["not a requirement !"])
    assert [finding.text.split()[0] for finding in _faults(list(doctor.examine()))] == ["check_versions"]
