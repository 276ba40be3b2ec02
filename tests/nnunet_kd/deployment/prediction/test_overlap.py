"""Reading, network and writing at the same time, with a bounded number of cases held."""

import threading
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.prediction.overlap import run_overlapped
from nnunet_kd.errors import UsageError

CASES = [CaseFiles(name=str(index), files=(), output=Path(f"{index}.nii.gz")) for index in range(8)]


class Counting:
    """Stages that count the cases between reading and writing."""

    def __init__(self) -> None:
        self.held = self.most = 0
        self.lock = threading.Lock()
        self.written: list[str] = []

    def prepare(self, case: CaseFiles, seconds: dict[str, float]) -> Any:
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
        return case

    def compute(self, prepared: Any, seconds: dict[str, float]) -> Any:
        return prepared

    def finish(self, case: CaseFiles, computed: Any, seconds: dict[str, float]) -> None:
        assert computed is case
        self.written.append(case.name)
        with self.lock:
            self.held -= 1


class Meeting(Counting):
    """Stages that can only go on together: each waits for the other two."""

    def __init__(self) -> None:
        super().__init__()
        self.read = [threading.Event() for _ in CASES]
        self.computed = [threading.Event() for _ in CASES]

    def prepare(self, case: CaseFiles, seconds: dict[str, float]) -> Any:
        self.read[int(case.name)].set()
        return super().prepare(case, seconds)

    def compute(self, prepared: Any, seconds: dict[str, float]) -> Any:
        index = int(prepared.name)
        self.computed[index].set()
        assert self.read[min(index + 1, 7)].wait(20), "the next case is not read meanwhile"
        return prepared

    def finish(self, case: CaseFiles, computed: Any, seconds: dict[str, float]) -> None:
        assert self.computed[min(int(case.name) + 1, 7)].wait(20), "the next case is not computed meanwhile"
        super().finish(case, computed, seconds)


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize("kind", [Counting, Meeting])
def test_stages_overlap_and_hold_few_cases(kind: type[Counting], n_workers: int) -> None:
    stages = kind()
    outcomes = list(run_overlapped(CASES, stages, started=lambda: None, n_workers=n_workers))
    assert [outcome.case.name for outcome in outcomes] == [case.name for case in CASES]
    assert [outcome.fault for outcome in outcomes] == [None] * 8
    assert sorted(stages.written) == [case.name for case in CASES]
    assert stages.most <= 1 + 2 * n_workers


@pytest.mark.parametrize("stage", ["prepare", "compute", "finish"])
@pytest.mark.parametrize("error", [UsageError("two\nlines"), MemoryError("two\nlines")], ids=["usage", "memory"])
def test_a_fault_costs_one_case(stage: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Counting()
    works = getattr(stages, stage)

    def fails(*arguments: Any) -> Any:
        if any(getattr(argument, "name", "") == "3" for argument in arguments):
            raise error
        return works(*arguments)

    monkeypatch.setattr(stages, stage, fails)
    outcomes = list(run_overlapped(CASES, stages, started=lambda: None))
    assert stages.written == [case.name for case in CASES if case.name != "3"]
    faults = [outcome.fault for outcome in outcomes if outcome.fault]
    assert [fault.case for fault in faults] == ["3"]
    assert faults[0].message.endswith("two lines")
    assert bool(faults[0].trace) == isinstance(error, MemoryError)


def test_an_interrupt_finishes_what_is_computed_and_drops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Counting()

    def compute(prepared: Any, seconds: dict[str, float]) -> Any:
        if prepared.name == "2":
            raise KeyboardInterrupt
        return prepared

    monkeypatch.setattr(stages, "compute", compute)
    with pytest.raises(KeyboardInterrupt):
        list(run_overlapped(CASES, stages, started=lambda: None))
    assert stages.written == ["0", "1"]


def test_a_network_that_does_not_load_ends_the_run() -> None:
    stages = Counting()

    def started() -> None:
        raise UsageError("no network")

    with pytest.raises(UsageError, match="no network"):
        list(run_overlapped(CASES, stages, started=started))
    assert not stages.written
