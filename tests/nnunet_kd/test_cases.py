"""Claims about work that is done for every case."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_kd.cases import FaultyCasesError, _say_once, map_cases
from nnunet_kd.errors import UsageError

# here and on two processes: functions are nested, so that they travel by value to processes that know no test module
WORKERS = pytest.mark.parametrize("n_workers", [0, 2])


@WORKERS
def test_results_come_in_the_order_of_the_cases(n_workers: int) -> None:
    def slow_first(case: int) -> int:
        time.sleep(0.5 if case == 0 else 0)
        return case * case

    assert map_cases(slow_first, range(5), description="squares", n_workers=n_workers) == [0, 1, 4, 9, 16]


@WORKERS
def test_faults_are_reported_together_after_all_cases_were_done(n_workers: int, tmp_path: Path) -> None:
    def odd_fails(case: int) -> None:
        (tmp_path / str(case)).touch()
        if case == 1:
            raise UsageError("expected an even number, got 1")
        if case == 3:
            raise KeyError("three")

    with pytest.raises(FaultyCasesError) as caught:
        map_cases(odd_fails, range(5), description="odd", name=lambda case: f"case_{case}", n_workers=n_workers)
    assert len(list(tmp_path.iterdir())) == 5
    assert [fault.case for fault in caught.value.faults] == ["case_1", "case_3"]
    assert "2 of 5 cases failed" in str(caught.value)
    assert "case_1: expected an even number, got 1" in str(caught.value)
    assert "case_3: KeyError" in str(caught.value)


def test_our_own_bugs_keep_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def divide(case: int) -> float:
        return 1 / case

    with caplog.at_level(logging.ERROR), pytest.raises(FaultyCasesError):
        map_cases(divide, [1, 0], description="inverse", n_workers=0)
    assert "in divide" in caplog.text


def test_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    def dies_once(case: int) -> int:
        marker = tmp_path / "died"
        if case == 2 and not marker.exists():
            marker.touch()
            os._exit(1)
        return case

    assert map_cases(dies_once, range(6), description="mortal", n_workers=2) == list(range(6))
    assert (tmp_path / "died").exists()


def test_case_that_always_kills_its_worker_is_the_only_one_lost(tmp_path: Path) -> None:
    def deadly(case: int) -> int:
        if case == 2:
            os._exit(1)
        (tmp_path / str(case)).touch()
        return case

    with pytest.raises(FaultyCasesError, match="2: its worker process died") as caught:
        map_cases(deadly, range(6), description="deadly", n_workers=2)
    assert len(caught.value.faults) == 1
    assert len(list(tmp_path.iterdir())) == 5


def test_work_leaves_this_process_when_a_cluster_pays() -> None:
    def process(_: int) -> int:
        return os.getpid()

    few = map_cases(process, range(3), description="few", seconds_per_case=0.01)
    assert set(few) == {os.getpid()}
    many = map_cases(process, range(2), description="many", n_workers=1)
    assert os.getpid() not in many


@pytest.fixture
def scheduler() -> Iterator[str]:
    """Address of a cluster that somebody else started."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, host="127.0.0.1") as cluster:
        yield cluster.scheduler_address


def test_running_scheduler_is_used_and_left_running(scheduler: str) -> None:
    def process(_: int) -> int:
        return os.getpid()

    first, second = (map_cases(process, [0], description="there", scheduler=scheduler) for _ in range(2))
    assert first == second != [os.getpid()]


def test_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_kd.cases._CONNECT_SECONDS", 1)
    with pytest.raises(UsageError, match=r"tcp://127\.0\.0\.1:9 "):
        map_cases(abs, [1], description="nobody", scheduler="tcp://127.0.0.1:9")


def test_no_cases_give_no_results() -> None:
    assert map_cases(abs, [], description="nothing") == []


@pytest.mark.parametrize(("n_cores", "n_started"), [(8, 3), (2, 2)])
def test_no_more_processes_start_than_there_are_cases_and_cores(
    n_cores: int, n_started: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    said: list[str] = []

    def refuse(*settings: object) -> None:
        asked.append(settings[-1])
        raise UsageError("no cluster")

    monkeypatch.setattr("nnunet_kd.cases._client", refuse)
    monkeypatch.setattr("dask.system.CPU_COUNT", n_cores)
    monkeypatch.setattr("nnunet_kd.cases.logger.warning", said.append)  # some libraries switch loggers off
    _say_once.cache_clear()  # another test of this process may have heard it
    for _ in range(2):
        with pytest.raises(UsageError, match="no cluster"):
            map_cases(abs, range(3), description="few", n_workers=99999999999999)
    assert asked == [n_started] * 2
    assert len([line for line in said if "2 processes instead of" in line]) == (n_started == 2)
