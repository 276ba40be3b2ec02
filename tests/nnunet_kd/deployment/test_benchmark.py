"""Benchmarks as a whole: real processes on toy models, their structure and never their absolute speed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nnunet_kd import cli
from nnunet_kd.deployment import benchmark
from nnunet_kd.deployment.benchmark import BenchmarkSettings, Worker, measure, take_turns
from nnunet_kd.deployment.benchmark_models import Contender
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.stage_times import STAGES
from nnunet_kd.errors import UsageError

# speaks the protocol of benchmark_worker without a model; a slow one sleeps in its network
STAND_IN = """
import json, os, sys, time
job = json.loads(sys.stdin.readline())
print("talk", file=sys.stderr)
behaviour = job["checkpoint"]
if behaviour == "dies":
    os.kill(os.getpid(), 9)
for answer in ({"done": "libraries"}, {"done": "model", "megabytes": 10.0}):
    print(json.dumps(answer), flush=True)
peak = 10.0
for line in sys.stdin:
    case = json.loads(line)
    with open(os.environ["TURNS"], "a") as turns:
        print(job["runtime"], os.getpid(), os.path.basename(case["output"]), file=turns)
    if behaviour == "fails":
        print("MemoryError: no room", file=sys.stderr)
        sys.exit(1)
    start = time.perf_counter()
    time.sleep(0.2 if behaviour == "slow" else 0.0)
    peak += 5.0
    seconds = dict.fromkeys(("load", "preprocess", "resample", "write"), 0.01)
    seconds["network"] = 0.01 + time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak}), flush=True)
"""


def contender(name: str, behaviour: str = "") -> Contender:
    return Contender(
        kind="bundle",
        path=Path("nowhere"),
        runtime=name,
        precision="f32",
        folds=(0,),
        checkpoint=behaviour,
        n_channels=1,
        file_ending=".nii.gz",
        reader="SimpleITKIO",
        is_planar=False,
        file_megabytes=1.0,
        weight_megabytes=1.0,
    )


def cases(n: int) -> list[CaseFiles]:
    return [CaseFiles(name=f"c{i}", files=(Path(f"c{i}_0000.nii.gz"),), output=Path(f"c{i}.nii.gz")) for i in range(n)]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in in place of the worker; the path is where it notes who took which case."""
    script, turns = tmp_path / "worker.py", tmp_path / "turns"
    script.write_text(STAND_IN)
    monkeypatch.setattr(benchmark, "_WORKER", (sys.executable, str(script)))
    monkeypatch.setenv("TURNS", str(turns))
    return turns


@pytest.fixture
def bundle(request: pytest.FixtureRequest, make_model: Callable[..., Path], tmp_path: Path) -> Path:
    pytest.importorskip("openvino")
    request.getfixturevalue("monkeypatch").delenv("nnUNet_preprocessed", raising=False)
    places = ["-m", str(make_model()), "-o", str(tmp_path / "bundle")]
    assert cli.main(["export", *places, "--threads", "1", "--patches", "1"]) == 0
    return tmp_path / "bundle"


def test_models_take_turns_case_by_case_in_processes_that_stay(stand_in: Path, tmp_path: Path) -> None:
    found = measure({"a": contender("a"), "b": contender("b")}, cases(2), BenchmarkSettings(repeats=2), tmp_path)
    turns = [line.split() for line in stand_in.read_text().splitlines()]
    forth = ["a c0", "b c0", "a c0", "b c0", "a c1", "b c1"]  # each once cold, then the rounds
    back = ["b c0", "a c0", "b c0", "a c0", "b c1", "a c1"]
    assert [f"{name} {case}" for name, _, case in turns] == forth + back
    assert len({pid for name, pid, _ in turns if name == "a"}) == 2  # one process per round
    assert [len(taken.cases) for taken in found["a"]] == [2, 2]
    assert all(taken.peak_megabytes == 25 and taken.megabytes_before == 10 for taken in found["b"])
    assert all(set(taken.start_up) == {"libraries", "model"} for taken in found["a"])
    assert list(take_turns(["a", "b"], 1, backwards=True)) == [("b", 0), ("a", 0)]


@pytest.mark.usefixtures("stand_in")
def test_a_slow_model_is_found_and_its_network_is_to_blame(tmp_path: Path) -> None:
    from nnunet_kd.deployment.stage_times import summarise

    models = {"quick": contender("quick"), "slow": contender("slow", "slow")}
    found = summarise(measure(models, cases(2), BenchmarkSettings(repeats=1), tmp_path))
    assert found["slow"].speed.high < 0.5
    assert found["slow"].stages["network"].median > 0.2
    assert found["slow"].stages["write"].median == pytest.approx(0.01)
    assert found["quick"].speed.median == 1


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("fails", "c0, model 'a': its process ended, MemoryError: no room"), ("dies", "killed by signal 9; .* memory")],
)
def test_a_process_that_ends_names_model_and_reason(tmp_path: Path, behaviour: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        measure({"a": contender("a", behaviour)}, cases(1), BenchmarkSettings(repeats=1), tmp_path)


def test_threads_reach_the_libraries_of_the_process(stand_in: Path, tmp_path: Path) -> None:
    code = "import json, os; print(json.dumps({}), json.dumps({'megabytes': os.environ['OMP_NUM_THREADS']}), sep='\\n')"
    (tmp_path / "worker.py").write_text(code)
    with Worker("a", contender("a"), BenchmarkSettings(threads=3), tmp_path) as worker:
        assert worker.megabytes_before == 3


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"threads": 0}, {"step_size": 0.0}, {"step_size": 1.5}], ids=str)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected .*got"):
        BenchmarkSettings(**wrong)


def test_a_bundle_and_a_model_folder_are_measured_side_by_side(
    bundle: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = (tmp_path / "results").glob("*/*")
    places = ["-m", f"teacher={model}", str(bundle), "-i", str(image_folder), "-o", str(tmp_path / "report")]
    assert cli.main(["benchmark", *places, "--repeats", "1", "--threads", "1"]) == 0
    content = json.loads((tmp_path / "report" / "benchmark.json").read_text())
    assert list(content["summary"]) == ["teacher", "bundle"]
    assert {file.name for file in (tmp_path / "report").iterdir()} == {
        "benchmark.json",
        "benchmark.md",
        "benchmark.png",
    }
    for name, (taken,) in content["rounds"].items():
        assert all(list(case) == list(STAGES) and min(case.values()) > 0 for case in taken["cases"])
        total = sum(taken["cases"][0].values())
        assert content["summary"][name]["case"]["median"] == pytest.approx(total)
        assert taken["peak_megabytes"] > taken["megabytes_before"] * 0.99 > 20
    assert content["models"]["teacher"]["runtime"] == "torch"
    sizes = content["models"]["bundle"]
    assert 0 < sizes["weight_megabytes"] < sizes["file_megabytes"]
    assert content["models"]["teacher"]["weight_megabytes"] == pytest.approx(sizes["weight_megabytes"], rel=0.05)
    assert content["summary"]["bundle"]["speed"]["median"] != 1
    assert str(tmp_path) not in json.dumps(content)
    assert "| teacher |" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))


def test_a_bundles_process_loads_neither_torch_nor_nnunet(bundle: Path, image_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from nnunet_kd.deployment import benchmark_worker as w; w.main();"
        "print([m for m in ('torch', 'nnunetv2', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    )
    job = {"kind": "bundle", "path": str(bundle), "runtime": "openvino", "threads": 1, "step_size": None}
    job |= {"mirroring": True, "resampling": "fast"}
    case = {"files": [str(image_folder / "case_9_0000.nii.gz")], "output": str(tmp_path / "mask")}
    requests = f"{json.dumps(job)}\n{json.dumps(case)}\n"
    done = subprocess.run([sys.executable, "-c", code], input=requests, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert list(json.loads(done.stdout.splitlines()[-1])["seconds"]) == list(STAGES)
    assert nib.load(tmp_path / "mask.nii.gz").shape == (20, 18, 16)


def _two_channels(images: Path, bundle: Path) -> None:
    shutil.copy(images / "case_9_0000.nii.gz", images / "case_9_0001.nii.gz")


def _truncated(images: Path, bundle: Path) -> None:
    file = images / "case_9_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])


def _nan(images: Path, bundle: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((20, 18, 16), np.nan, np.float32), np.eye(4)), images / "case_9_0000.nii.gz")


def _no_images(images: Path, bundle: Path) -> None:
    (images / "case_9_0000.nii.gz").unlink()


def _foreign_output(images: Path, bundle: Path) -> None:
    (bundle.parent / "report").mkdir()
    (bundle.parent / "report" / "thesis.txt").write_text("mine")


def _nothing(images: Path, bundle: Path) -> None:
    pass


def test_mistakes_cost_one_line_and_leave_nothing(
    bundle: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "bundle2"
    shutil.copytree(bundle, other)
    for spoil, arguments, expected in (
        (_nothing, ["-m", tmp_path / "none"], "no model folder"),
        (_nothing, ["-m", image_folder], "bundle.json"),
        (_nothing, ["-m", bundle, bundle], "called 'bundle'"),
        (_nothing, ["-m", bundle, "--repeats", "0"], "at least 1 round, got 0"),
        (_nothing, ["-m", bundle, "--cases", "0"], "at least 1 case, got 0"),
        (_nothing, ["-m", bundle, "-f", "0"], "-f belongs to model folders"),
        (_nothing, ["-m", bundle, "-i", tmp_path / "nowhere"], "folder of images"),
        (_two_channels, ["-m", bundle], "expected 1 channels, got 2"),
        (_truncated, ["-m", bundle], "case_9_0000.nii.gz"),
        (_nan, ["-m", bundle], "finite"),
        (_no_images, ["-m", bundle], "CASE_0000"),
        (_foreign_output, ["-m", bundle], "other things than a benchmark"),
    ):
        images = tmp_path / "copy"
        shutil.rmtree(images, ignore_errors=True)
        shutil.copytree(image_folder, images)
        spoil(images, bundle)
        before = sorted(tmp_path.rglob("*"))
        everything = ["-i", images, "-o", tmp_path / "report", *arguments]
        assert cli.main(["benchmark", *map(str, everything)]) == 2, expected
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert expected in line
        assert sorted(tmp_path.rglob("*")) == before
