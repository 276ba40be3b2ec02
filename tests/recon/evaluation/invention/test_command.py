"""``recon hallucination_report`` from folders to a report, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.recon.data.cases import write_volume

h5py = pytest.importorskip("h5py")
SAMPLING = {"mask": "random", "acceleration": 4}


def _write(file: Path, volume: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    with h5py.File(file, "w") as content:
        content["reconstruction"] = volume.astype(np.float32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, plant: Callable[[str, int], Any]) -> Path:
    """Two cases; a blurred baseline, two samples with the disc and noise of their own, the baseline again as x8."""
    folder = tmp_path_factory.mktemp("site")
    random = np.random.default_rng(0)
    (folder / "dataset.json").write_text(json.dumps({"kspace": "retrospective, simulated", "sampling": SAMPLING}))
    for number in range(2):
        name = f"phantom_{number}"
        one = plant(name, 5 + number)
        (folder / "kspaceTs").mkdir(exist_ok=True)
        write_volume(folder / "kspaceTs" / f"{name}.h5", one.case)
        for sample in ("s0", "s1"):
            _write(folder / sample / f"{name}.h5", one.invented + 0.01 * random.normal(size=one.target.shape))
        for base in ("blurred", "blurred8"):
            _write(folder / base / f"{name}.h5", one.blurred)
    return folder


def _run(site: Path, *words: object) -> int:
    fixed = ["-r", site / "kspaceTs", "--metrics", "PSNR", "-np", 0]
    return cli.main(["recon", "hallucination_report", *map(str, (*fixed, *words))])


@pytest.fixture(scope="module")
def report(site: Path) -> Path:
    arms = [f"blurred@4={site / 'blurred'}", f"disc@4={site / 's0'},{site / 's1'}", f"blurred@8={site / 'blurred8'}"]
    output = site / "report"
    words = [word for arm in arms for word in ("--arm", arm)]
    assert not _run(site, *words, "--baseline", "blurred", "-o", output)
    return output


def test_report_tells_invention_from_blur(report: Path) -> None:
    found = {
        (arm["name"], arm["acceleration"]): arm for arm in json.loads((report / "report.json").read_text())["arms"]
    }
    assert list(found) == [("blurred", 4), ("disc", 4), ("blurred", 8)]
    blurred, disc = found["blurred", 4], found["disc", 4]
    assert blurred["mean"]["sample"]["marked"] == 0 < disc["mean"]["sample"]["marked"] < 0.1
    assert blurred["mean"]["sample"]["fine"] < -10 < disc["mean"]["mean of samples"]["fine"]
    assert blurred["mean"]["sample"]["residual"] > disc["mean"]["sample"]["residual"] > 10 * disc["residual_of_target"]
    assert blurred["calibration"] is None
    assert disc["calibration"]["error_to_spread"] > 1.2  # both samples agree on the disc; 1 would be calibrated
    assert found["blurred", 8]["true_acceleration"] > 1.5 * disc["true_acceleration"]
    assert disc["mean"]["sample"]["detail"] > 0


def test_report_can_be_read(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert "## Acceleration 4" in text
    assert "cannot tell, of a new patient" in text
    assert "k-space: retrospective, simulated" in text
    pictures = {file.name for file in report.glob("*.png")}
    expected = {"curves.png", "slice_x4_middle.png", "slice_x4_most_marked.png", "slice_x8_middle.png"}
    assert pictures == expected
    assert all(f"({name})" in text for name in pictures)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "a={blurred}", "--arm", "a={s0}"], "names 'a' twice"),
        (["--arm", "a={blurred}", "--arm", "b={blurred}"], "twice; leave one out"),
        (["--arm", "a@fast={blurred}"], "expected an acceleration"),
        (["--arm", "a={blurred}", "--baseline", "b"], "the arms are a"),
        (["--arm", "a@4={blurred}", "--arm", "b@8={s0}", "--baseline", "a"], "at acceleration 8 are b@8"),
        (["--arm", "a={kspaceTs}"], "expected the key reconstruction"),
        (["--arm", "a={blurred}", "--patch", "200"], "at least --patch 200"),
        (["--arm", "a={blurred}", "--mask", "spiral"], "sampling, mask"),
        (["--arm", "a={missing}"], "expected a folder"),
    ],
)
def test_mistakes_end_in_one_line_and_no_folder(
    site: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: site / name for name in ("blurred", "s0", "kspaceTs", "missing")}
    assert _run(site, *(word.format(**places) for word in words), "-o", site / "none") == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (site / "none").exists()


def test_other_folders_are_not_replaced(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(site, "--arm", f"a={site / 'blurred'}", "-o", site / "s0", "--overwrite") == 2
    assert "holds other things than a report" in capsys.readouterr().err
