"""Claims about how many steps fit into the minutes."""

from dataclasses import replace

import pytest

from nnunet_kd.phantoms.schedule import N_EPOCHS, slowdown, student_steps, teacher_steps
from nnunet_kd.phantoms.stopwatch import StepTimes

TIMES = StepTimes(teacher=0.4, student=0.05, guidance=0.1, start=2.0)


def _minutes_spent(times: StepTimes, teacher: int, students: int) -> float:
    """Computing alone: what cannot be avoided."""
    return (teacher * times.teacher + students * (2 * times.student + times.guidance)) / 60


@pytest.mark.parametrize("minutes", [5, 7, 30])
def test_steps_fit_into_the_time(minutes: float) -> None:
    n_steps = teacher_steps(TIMES, 60 * minutes)
    assert n_steps > 100
    assert 0.3 * minutes < _minutes_spent(TIMES, n_steps, n_steps) < 0.75 * minutes


def test_slower_machine_makes_fewer_steps() -> None:
    assert teacher_steps(TIMES.slower(2), 420) < teacher_steps(TIMES, 420)


def test_steps_fill_whole_epochs() -> None:
    assert all(teacher_steps(TIMES, seconds) % N_EPOCHS == 0 for seconds in range(60, 600, 7))


def test_some_steps_are_made_even_where_no_time_is_left() -> None:
    assert teacher_steps(TIMES, -100) == student_steps(TIMES, -100, at_most=500) > 0


def test_students_make_no_more_steps_than_the_teacher() -> None:
    assert student_steps(TIMES, 6000, at_most=120) == 120


def test_students_make_fewer_steps_after_a_slow_teacher() -> None:
    on_time = student_steps(TIMES, 150, at_most=1000)
    assert student_steps(TIMES.slower(3), 150, at_most=1000) < on_time


def test_slowdown_is_read_from_what_nnunet_printed() -> None:
    log = "\n".join(f"2026-01-01 00:00:00: Epoch time: {seconds} s" for seconds in (90.0, 12.0, 12.5))
    times = replace(TIMES, teacher=0.4)
    one, two = slowdown(times, log, 20), slowdown(times, log.replace("12.5", "25.0").replace("12.0", "25.0"), 20)
    assert two == pytest.approx(2 * one)  # the median: the first epoch starts the workers
    assert slowdown(times, "", 20) == 1
