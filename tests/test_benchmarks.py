"""The benchmarks' settings: what they tell ``nnunet_kd plan`` exists, and arms differ in what they say they do."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.planning import command
from nnunet_kd.planning.named_options import parse_named_options
from nnunet_kd.planning.students import STUDENTS, student_options

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("distill_dsm", "hlfd", "semi_supervised")

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="reads the checkout")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import study as module

    yield module
    sys.modules.pop("study")


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_training_can_be_planned_and_has_a_name_of_its_own(name: str, study: Any, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    place = study.Workplace(tmp_path, 1)
    given = [Path("teacher")]
    todo = study.trainings(settings(name), "Dataset004_Toy", place, given)
    assert len({training.plans for training in todo}) == len(todo)
    for training in todo:
        options = parser.parse_args(["-d", "4", "-c", training.configuration, *training.options])
        student, values = parse_named_options(options.student, "--student", "")
        assert student in STUDENTS
        assert set(values) <= set(student_options(student))
        assert bool(training.teachers) == (options.method != "none")


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_has_the_controls_budget(name: str) -> None:
    """What differs is the method, the network and the rate that suits it."""
    found = settings(name)
    assert found["control"] in found["arms"]
    for arm in found["arms"].values():
        named = {word for word in arm["options"] if word.startswith("--")}
        assert named <= {"--method", "--student", "--shrink", "--lr", "--random-teacher", "--teacher-outputs"}
        assert set(arm["seeds"]) <= set(found["arms"][found["control"]]["seeds"])


def test_a_teacher_of_the_benchmarks_own_is_planned_before_its_students(study: Any, tmp_path: Path) -> None:
    place = study.Workplace(tmp_path, 1)
    todo = study.trainings(settings("hlfd"), "Dataset004_Toy", place, [])
    by_name = {training.name: i for i, training in enumerate(todo)}
    (teacher,) = {path for training in todo for path in training.teachers}
    assert place.model_folder(todo[by_name["unet-teacher_seed0"]]) == teacher
    assert by_name["unet-teacher_seed0"] == 0
