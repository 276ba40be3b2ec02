"""``recon evaluate`` and ``recon compare`` on small files."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd import cli

h5py = pytest.importorskip("h5py")
N_CASES = 4


def _write(file: Path, key: str, volume: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as content:
        content[key] = volume


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Targets, and two arms: one noisy, one with half of that noise."""
    random = np.random.default_rng(0)
    for number in range(N_CASES):
        target = random.random((3, 32, 24)).astype("f4")
        noise = random.normal(size=target.shape) * (0.1 + 0.02 * number)
        _write(tmp_path / "kspaceTs" / f"case{number}.h5", "reconstruction_esc", target)
        _write(tmp_path / "student" / f"case{number}.h5", "reconstruction", np.pad(target + noise, [(0,), (4,), (4,)]))
        _write(tmp_path / "kd" / f"case{number}.h5", "reconstruction", target + noise / 2)
    facts = {"kspace": "retrospective, magnitude-derived", "patients": {f"case{n}": f"p{n // 2}" for n in range(4)}}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    return tmp_path


def _run(*words: object) -> int:
    return cli.main(["recon", *map(str, words)])


def test_summary_has_nnunets_shape(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prediction is larger than the target: it is compared on the target's pixels."""
    text = folders / "report.txt"
    assert not _run("evaluate", "-i", folders / "student", "-r", folders / "kspaceTs", "--report_txt", text, "-np", 0)
    summary = json.loads((folders / "student" / "summary.json").read_text())
    assert list(summary["foreground_mean"]) == ["PSNR", "SSIM", "NMSE", "HFEN"]
    cases = [entry["metrics"]["volume"]["PSNR"] for entry in summary["metric_per_case"]]
    assert summary["mean"]["volume"]["PSNR"] == pytest.approx(np.mean(cases))
    assert 15 < min(cases) < max(cases) < 21  # 20 dB is noise of a tenth of the range
    assert text.read_text().startswith("HFEN = ")
    assert "PSNR" in capsys.readouterr().out


def test_comparison_resamples_patients_and_says_whence_the_data(folders: Path) -> None:
    arms = ["--arm", f"student={folders / 'student'}", "--arm", f"kd={folders / 'kd'}"]
    output = folders / "report"
    assert not _run("compare", "-r", folders / "kspaceTs", *arms, "-o", output, "--metrics", "PSNR", "-np", 1)
    report = json.loads((output / "report.json").read_text())
    assert report["n_patients"] == 2
    (row,) = [row for row in report["rows"] if row["arm"] == "kd"]
    assert row["difference"]["value"] == pytest.approx(20 * np.log10(2), abs=1e-3)  # half of the noise
    words = (output / "report.md").read_text()
    assert "magnitude-derived" in words
    assert "reconstructions.png" in words
    assert (output / "reconstructions.png").stat().st_size > 10_000
    again = ["compare", "-r", folders / "kspaceTs", *arms, "-o", output, "--metrics", "PSNR", "-np", 1]
    assert _run(*again) == 2
    assert _run(*again, "--overwrite") == 0


FAULTS = {
    "no key": (lambda f: _write(f / "student" / "case1.h5", "wrong", np.zeros((3, 32, 24))), "reconstruction"),
    "nan": (lambda f: _write(f / "student" / "case1.h5", "reconstruction", np.full((3, 32, 24), np.nan)), "finite"),
    "missing": (lambda f: (f / "student" / "case1.h5").unlink(), "case1"),
    "no target": (lambda f: _write(f / "kspaceTs" / "case1.h5", "kspace", np.zeros((3, 32, 24))), "reconstruction_rss"),
    "too small": (lambda f: _write(f / "student" / "case1.h5", "reconstruction", np.ones((3, 16, 16))), "(3, 32, 24)"),
    "truncated": (lambda f: (f / "student" / "case1.h5").write_bytes(b"\x89HDF\r\n\x1a\n"), "cannot read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_case_is_named_and_nothing_is_written(
    folders: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = FAULTS[fault]
    spoil(folders)
    assert _run("evaluate", "-i", folders / "student", "-r", folders / "kspaceTs", "-np", 0) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "case1" in message
    assert not (folders / "student" / "summary.json").exists()


def test_an_arm_without_folder_is_refused(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("compare", "-r", folders / "kspaceTs", "--arm", "student=,", "-o", folders / "report") == 2
    assert "expected a folder of reconstructions for --arm student" in capsys.readouterr().err
