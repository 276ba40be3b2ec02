"""Claims about the search itself, on costs that are known."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.memory import read_megabytes
from nnunet_kd.planning.budget_plot import plot_search
from nnunet_kd.planning.budget_report import Search, page, rows, table_text
from nnunet_kd.planning.budget_search import STAGES, Candidate, Found, Limits, Measurement, search
from nnunet_kd.planning.budget_store import Measurements
from nnunet_kd.planning.coarser import with_coarser_spacing
from nnunet_kd.planning.median_case import nearest_to_median

Measure = Callable[[Candidate], Measurement]


def lattice() -> list[Candidate]:
    """Students of 7 widths, 3 depths, 2 numbers of blocks and 2 spacings."""
    return [
        Candidate(
            place=(-width, depth, -blocks, -coarser),
            parameters=int(8**depth / width**2 / blocks) + depth,
            resolution=coarser**-3,
            name=f"{width} {depth} {blocks} {coarser}",
        )
        for width, depth, blocks, coarser in product((1, 2, 3, 4, 6, 8, 16), (4, 5, 6), (1, 2), (1.0, 2.0))
    ]


def taken(seconds: float = 1.0, memory: float = 100.0, megabytes: float = 1.0) -> Measurement:
    stages = dict.fromkeys(STAGES, 0.0)
    return Measurement(
        stages=stages, tile_seconds=seconds / 2, n_tiles=2, start_up=9, peak_megabytes=memory, file_megabytes=megabytes
    )


def cost(candidate: Candidate) -> Measurement:
    """Rise in every coordinate, and not with the number of parameters: width costs more than depth, as in life."""
    width, depth, blocks, coarser = (abs(value) for value in candidate.place)
    seconds = (1 + 0.1 * depth) / width**1.5 / blocks**0.5 / coarser**2.5
    return taken(seconds, memory=200 + 300 * seconds, megabytes=candidate.least_megabytes + 0.1)


@pytest.fixture
def noted() -> tuple[list[Candidate], Measure]:
    """Return a list and what measures into it."""
    order: list[Candidate] = []

    def measure(candidate: Candidate) -> Measurement:
        order.append(candidate)
        return cost(candidate)

    return order, measure


LIMITS = [
    *(Limits(seconds=float(seconds)) for seconds in np.geomspace(0.004, 2.0, 12)),
    *(Limits(memory=memory) for memory in (210.0, 300.0, 600.0)),
    *(Limits(megabytes=megabytes) for megabytes in (0.15, 0.3, 1.0)),
    Limits(seconds=0.3, memory=260.0, megabytes=0.4),
    Limits(),
]


@pytest.mark.parametrize(
    "limits", LIMITS, ids=lambda limits: f"{limits.seconds:.3g}-{limits.memory}-{limits.megabytes}"
)
def test_the_largest_that_keeps_the_budget_is_found_with_few_measurements(
    limits: Limits, noted: tuple[list[Candidate], Measure]
) -> None:
    order, measure = noted
    found = search(lattice(), limits, measure)
    keeps = [c for c in lattice() if not limits.over(cost(c))]
    assert found.chosen == max(keeps, key=lambda c: (c.size, c.place), default=None)
    assert len(order) == len(set(order)) == len(found.measured) <= 20  # of 84
    again = search(lattice()[::-1], limits, cost)
    assert list(again.measured) == order  # whatever the order they come in


@pytest.mark.parametrize("limits", [Limits(seconds=1e-4), Limits(memory=100), Limits(megabytes=1e-6)])
def test_without_a_student_within_the_budget_none_is_chosen(limits: Limits) -> None:
    found = search(lattice(), limits, cost)
    assert found.chosen is None
    nearest = found.cheapest()
    if limits.megabytes < inf:
        assert nearest is None
        assert not found.measured  # their weights alone are too large
    else:
        assert nearest is not None
        assert cost(nearest).seconds == min(cost(c).seconds for c in lattice())


def test_seconds_are_the_sum_of_all_stages_without_start_up() -> None:
    stages = dict(zip(STAGES, (1.0, 2.0, 4.0, 8.0, 16.0), strict=True))
    found = replace(taken(), stages=stages, tile_seconds=0.5, n_tiles=6)
    assert found.seconds == 34.0
    assert Limits(seconds=34.0, memory=100.0, megabytes=1.0).over(found) == {}
    assert Limits(seconds=17.0, memory=50.0, megabytes=0.1).over(found) == {"seconds": 2, "memory": 2, "megabytes": 10}


def report(limits: Limits) -> Search:
    found: Found = search(lattice(), limits, cost)
    patches = dict.fromkeys(found.candidates, (8, 8))
    return Search(found=found, patches=patches, case="c_1", machine="a machine", n_new=len(found.measured))


def test_the_table_says_of_every_candidate_what_became_of_it(tmp_path: Path) -> None:
    done = report(Limits(seconds=0.3, megabytes=0.5))
    table = rows(done)
    verdicts = [row[-1] for row in table]
    assert len(table) == len(lattice())
    assert verdicts.count("chosen") == 1
    place = verdicts.index("chosen")
    assert "kept, but smaller" in verdicts[:place]
    for verdict in verdicts[place + 1 :]:
        assert verdict.startswith(("too slow (", "no less than #", "weights alone are"))
    assert {row[5] == "-" for row, verdict in zip(table, verdicts, strict=True) if "no less" in verdict} == {True}
    assert "start-up apart" in table_text(done)
    text = page(done, "title", "picture.png")
    assert text.count("\n|") >= len(lattice()) + 2
    assert "![What was tried](picture.png)" in text
    for limits in (Limits(seconds=0.3), Limits(megabytes=0.5)):
        plot_search(report(limits), tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_measurements_are_stored_one_by_one_and_read_again(tmp_path: Path) -> None:
    first = Measurements(tmp_path)
    assert first.get({"a": 1}, "one", lambda: taken(3.0)) == taken(3.0)
    Measurements(tmp_path).get({"a": 2}, "two", lambda: taken(4.0))  # another search in between
    first.get({"a": 3}, "three", lambda: taken(5.0))
    second = Measurements(tmp_path)
    for number, seconds in ((1, 3.0), (2, 4.0), (3, 5.0)):
        assert second.get({"a": number}, "", lambda: pytest.fail("measured again")).seconds == seconds
    assert second.n_new == 0
    assert Measurements(tmp_path, fresh=True).get({"a": 1}, "one", lambda: taken(6.0)).seconds == 6.0
    assert Measurements(tmp_path).get({"a": 1}, "one", taken).seconds == 6.0


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', '{"format": 1, "measurements": {"a": {"found": {}}}}'])
def test_a_damaged_file_of_measurements_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "nnunet_kd_measurements.json").write_text(content)
    with pytest.raises(UsageError, match=r"nnunet_kd_measurements\.json"):
        Measurements(tmp_path)


def test_coarser_spacing_leaves_long_voxels_and_the_extent_of_the_patch() -> None:
    plan = {
        "spacing": [5.0, 1.0, 1.0],
        "patch_size": [16, 128, 160],
        "median_image_size_in_voxels": [20.0, 200.0, 300.0],
        "data_identifier": "nnUNetPlans_3d_fullres",
        "architecture": {"arch_kwargs": {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]}},
    }
    coarse = with_coarser_spacing(plan, 3)
    assert coarse["spacing"] == [5.0, 3.0, 3.0]
    assert coarse["patch_size"] == [16, 64, 64]  # 4 voxels at the coarsest stage, where a third would be fewer
    assert coarse["median_image_size_in_voxels"] == pytest.approx([20, 200 / 3, 100])
    assert coarse["data_identifier"] == "nnUNetPlans_3d_fullres_x3"
    assert plan["spacing"] == [5.0, 1.0, 1.0]


def test_the_median_case_is_median_as_the_network_sees_it_and_as_a_file() -> None:
    shapes = [(10, 10, 10), (40, 40, 40), (20, 20, 20), (20, 20, 20), (400, 400, 400)]
    spacings = [(1.0,) * 3, (0.5,) * 3, (0.1,) * 3, (1.0,) * 3, (1.0,) * 3]
    assert nearest_to_median(shapes, spacings, (1.0, 1.0, 1.0)) == 3
    assert nearest_to_median(shapes, spacings, (1.0, 1.0)) == 3


@pytest.mark.parametrize(("text", "megabytes"), [("2G", 2000), ("500M", 500), ("1.5gb", 1500), ("1 T", 1e6)])
def test_memory_is_read_with_its_unit(text: str, megabytes: float) -> None:
    assert read_megabytes(text, "--max-memory") == megabytes


@pytest.mark.parametrize("text", ["2", "0G", "-1G", "G", "2X", ""])
def test_memory_without_unit_or_amount_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"type e\.g\. --max-memory 2G"):
        read_megabytes(text, "--max-memory")
