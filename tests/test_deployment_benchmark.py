"""The deployment benchmark: what it measures of commands, what it keeps between rounds, and how it reports them."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nnunet_kd.deployment.inference.plan import make_inference_plan
from nnunet_kd.deployment.inference.resampling import new_shape
from nnunet_kd.deployment.inference.sliding_window import tiles
from nnunet_kd.planning.budget_report import Search, page
from nnunet_kd.planning.budget_search import STAGES, Candidate, Found, Limits, Measurement

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MIB = 2**20

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="reads the checkout")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def find(name: str) -> Any:
        __import__(name)
        return sys.modules[name]

    yield find
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            del sys.modules[name]


def python(measure: Any, code: str) -> Any:
    return measure.Command(words=[sys.executable, "-c", textwrap.dedent(code), "{images}", "{output}"], model=Path())


def save(path: Path, labels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(labels, dtype=np.uint8), np.eye(4)), path)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("100%|####| 36/36 [02:31<00:00,  4.20s/it]", (36, 151)),
        ("1/1 [00:01<00:00]\r 40/40 [1:00:02<00:00]\n 5/36 [00:09<01:00]", (40, 3602)),
        ("Predicting ct_001", None),
    ],
    ids=["one", "largest", "none"],
)
def test_the_networks_seconds_are_read_from_nnunets_bar(load: Any, log: str, expected: object) -> None:
    assert load("deployment_measure").network_seconds(log) == expected


def test_memory_is_that_of_all_children_and_shared_pages_count_once(load: Any, tmp_path: Path) -> None:
    measure = load("deployment_measure")
    command = python(
        measure,
        """
        import mmap, os, time
        shared = mmap.mmap(-1, 200 * 2**20)
        for _ in range(2):
            if not os.fork():
                shared.write(bytes(200 * 2**20))  # the same pages by both
                own = bytearray(os.urandom(2**20)) * 50
                time.sleep(2)
                os._exit(0)
        os.wait(), os.wait()
        """,
    )
    taken = measure.run_command(command, tmp_path, tmp_path / "out", measure.clean_environment({}))
    # twice 50 and once 200 MiB, and Python's own; 500 and more if shared pages counted twice
    assert 300 * MIB / 1e6 < taken.peak_megabytes < 400 * MIB / 1e6
    assert 2 < taken.seconds < 60


def test_a_command_that_fails_ends_the_benchmark_with_its_words(load: Any, tmp_path: Path) -> None:
    measure = load("deployment_measure")
    command = python(measure, "print('no such model'); raise SystemExit(3)")
    with pytest.raises(SystemExit, match="ended with 3:\nno such model"):
        measure.run_command(command, tmp_path, tmp_path / "out", {})


def test_commands_see_no_setting_of_nnunet_but_its_folders(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_compile", "true")
    monkeypatch.setenv("nnUNet_results", "/elsewhere")
    found = load("deployment_measure").clean_environment({"nnUNet_results": Path("work")})
    assert {name: value for name, value in found.items() if name.startswith("nnUNet_")} == {"nnUNet_results": "work"}
    assert "PATH" in found


def test_label_maps_are_compared(load: Any, tmp_path: Path) -> None:
    measure = load("deployment_measure")
    first, second = np.zeros((2, 10, 10, 1), dtype=np.uint8)
    first[:4, :5], second[:4, :5], second[0, 0], second[9, 9] = 1, 1, 2, 1
    for case, other in (("a", second), ("b", first)):
        save(tmp_path / "truth" / f"{case}.nii.gz", first)
        save(tmp_path / "ours" / f"{case}.nii.gz", other)
    folders = tmp_path / "truth", tmp_path / "ours"
    assert measure.agreement(*folders, ["a", "b"]) == pytest.approx(
        {"equal": 0.99, "worst_case": 0.98, "other_per_foreground": 2 / 40}
    )
    scores = measure.dice_scores(*folders, ["a"])
    assert scores == {"a": {"anterior": pytest.approx(38 / 40), "posterior": 0.0}}


def test_rounds_take_turns_and_are_not_repeated(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment, measure = load("deployment"), load("deployment_measure")
    monkeypatch.setattr(deployment, "file_megabytes", lambda _: 1.5)
    (tmp_path / "images").mkdir()
    order = tmp_path / "order"
    commands = {name: python(measure, f"open({str(order)!r}, 'a').write({name!r})") for name in "ab"}
    part = deployment.Part(
        name="toy",
        commands=commands,
        images=tmp_path / "images",
        common={"models": {"student": "f00"}, "n_cases": 2},
        describe=lambda outputs: {name: {"label_maps": output.name} for name, output in outputs.items()},
    )
    place, results = deployment.Place(tmp_path / "work"), tmp_path / "results"
    deployment.run_rounds(part, place, results, [1, 2])
    assert order.read_text() == "abba"
    found = json.loads((results / "toy_round2.json").read_text())
    assert found["commands"]["b"].keys() == {"seconds", "peak_megabytes", "megabytes", "label_maps"}
    assert found["commands"]["a"]["label_maps"] != found["commands"]["b"]["label_maps"]
    assert found["hardware"]
    assert deployment.waiting_rounds(results, "toy", 3, part.common) == [3]
    with pytest.raises(SystemExit, match="measured with other models"):
        deployment.waiting_rounds(results, "toy", 3, {**part.common, "models": {"student": "bad"}})


def a_round(measure: Any, number: int, part: str) -> dict[str, Any]:
    """Write nothing: 100 s, 40 s and then 4, 3 ... s, twice as slow in the second round, and all students alike."""
    ours = measure.HIPPOCAMPUS_STUDENTS if part == "hippocampus" else measure.CT_STUDENTS
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.8, 0.9, 12)
    commands = {}
    for i, name in enumerate([measure.TEACHER, measure.STOCK, *ours]):
        dice = truth if name == measure.TEACHER else truth - 0.03 + rng.normal(0, 0.001, 12)
        commands[name] = {
            "seconds": number * [100.0, 40.0, 4.0, 2.0, 1.0][i],
            "peak_megabytes": [900.0, 800.0, 200.0, 210.0, 220.0][i],
            "megabytes": 1.0,
            "network": [36, 10] if name in (measure.TEACHER, measure.STOCK) else None,
            "dice": {f"case_{k:02d}": {"anterior": value, "posterior": value} for k, value in enumerate(dice)},
            "as_stock_student": {"equal": 0.99995, "worst_case": 0.999} if name in ours else None,
        }
    facts = {"round": number, "part": part, "n_cases": 12, "load": 0.1, "hardware": "a processor", "versions": {}}
    return {**facts, "commands": commands}


def test_the_report_states_ratios_within_rounds_and_says_what_is_extrapolated(
    load: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, measure = load("deployment_report"), load("deployment_measure")
    for part in report.SECTIONS:
        for number in (1, 2):
            content = a_round(measure, number, part)
            (tmp_path / f"{part}_round{number}.json").write_text(json.dumps(content))
    page = report.PAGE.read_bytes()
    report.write(tmp_path, into_docs=False)
    printed = capsys.readouterr().out
    assert "| student, ours, f32 | 6.00 [4.00, 8.00] | 25.0 [25.0, 25.0] | 10.0 [10.0, 10.0] | 200 | 1.00 |" in printed
    assert "| -0.03" in printed
    assert "99.9950 % | 99.9000 %" in printed
    # 100 + 7 * 10 in the first round, 200 + 7 * 10 in the second
    assert "8 mirrors (extrapolated) | 220.0 [170.0, 270.0] |" in printed
    assert "| 200 [200, 200] | 0.25 [0.25, 0.25] |" in printed
    assert (tmp_path / report.PICTURE).stat().st_size > 10_000
    assert report.PAGE.read_bytes() == page


def test_the_large_volume_has_at_most_forty_tiles_and_models_are_nnunets(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct = load("deployment_ct")
    shape = new_shape((300, 512, 512), ct.SPACING, ct.PLAN_SPACING)
    assert 30 <= len(list(tiles(shape, ct.PATCH, 0.5))) <= 40
    ct.write_volume(tmp_path / "ct_001_0000.nii.gz", [24, 20, 6])
    volume = nib.load(tmp_path / "ct_001_0000.nii.gz")
    assert volume.shape == (24, 20, 6)
    assert volume.header.get_zooms() == pytest.approx((0.75, 0.75, 2.5))
    values = np.asarray(volume.dataobj)
    assert values.dtype == np.int16
    assert values.min() == -1000
    assert values.max() > 100
    assert set(np.unique(ct.phantom([12, 24, 24])[1])) == set(ct.LABELS.values())
    monkeypatch.setattr(ct, "GRID", (48, 48, 48))  # one tile, to train on quickly
    folder = ct.write_model(tmp_path / "results", 32, n_steps=1)
    assert folder.name.split("__")[1] == json.loads((folder / "plans.json").read_text())["plans_name"]
    plan = make_inference_plan(ct.plans(ct.FEATURES), ct.dataset_json(), ct.CONFIGURATION, (0, 1, 2))
    assert plan.n_outputs == 3
    assert load("deployment_measure").file_megabytes(folder) < 1


def test_the_planners_own_page_is_read(load: Any) -> None:
    planner = load("deployment_planner")
    candidate = Candidate(place=(1.0,), parameters=1000, name="shrink 4, depth 3")
    stages = dict.fromkeys(STAGES, 0.01)
    taken = Measurement(
        stages=stages, tile_seconds=0.02, n_tiles=2, start_up=0.5, peak_megabytes=99.0, file_megabytes=1.0
    )
    limits = Limits(seconds=0.1)
    found = Found(candidates=(candidate,), limits=limits, measured={candidate: taken}, chosen=candidate)
    search = Search(found=found, patches={candidate: (8, 8, 8)}, case="case_7", machine="a processor", n_new=1)
    read = planner.read_page(page(search, "title", "picture.png"))
    assert read == planner.Prediction(student="shrink 4, depth 3", case="case_7", seconds=0.09)
    with pytest.raises(ValueError, match="expected student, case, seconds"):
        planner.read_page("nothing")


def test_the_planners_table_states_the_ratio(load: Any) -> None:
    report = load("deployment_report")
    case = {"median": 0.045, "low": 0.04, "high": 0.05, "n": 27}
    found = [
        {
            "budget": budget,
            "parameters": 1000,
            "hardware": "a processor",
            "predicted": {"student": "shrink 4", "case": "case_7", "seconds": 0.05},
            "measured": {"case": case, "start_up": {"median": 0.5}},
        }
        for budget in (0.05, 0.1)
    ]
    rows = report.planner_table(found).splitlines()[2:4]
    expected = "| 0.1 | shrink 4 | 1,000 | 0.0500 | 0.0450 [0.0400, 0.0500] | 0.90 | 0.50 |"
    assert rows == [expected, expected.replace("| 0.1 |", "| 0.05 |")]
