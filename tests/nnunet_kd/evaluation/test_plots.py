"""The picture shows what the report says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from nnunet_kd.evaluation import plots
from nnunet_kd.evaluation.analysis import analyse
from nnunet_kd.evaluation.arms import ArmScores, Cases
from nnunet_kd.evaluation.labels import scheme_from_values
from nnunet_kd.evaluation.plots import COLOURS, plot_report, spread_out
from nnunet_kd.evaluation.report import Report
from nnunet_kd.evaluation.score_sets import RunScores
from nnunet_kd.evaluation.statistics import Resampling
from nnunet_kd.networks.cost import NetworkCost

N_CASES = 12


@pytest.fixture
def report(random: np.random.Generator) -> Callable[..., Report]:
    """A report without files: each arm is the student's scores plus a gain."""

    def make(gains: dict[str, float], macs: dict[str, int] | None = None, missing: int = 0) -> Report:
        base = random.beta(8, 2, size=(N_CASES, 1, 1))
        base[:missing] = np.nan
        cases, how = tuple(f"c{number}" for number in range(N_CASES)), Resampling(n_resamples=200)
        arms = {
            name: ArmScores(
                name=name,
                sources=("x",),
                runs=(RunScores(cases=cases, structures=("1",), metrics=("dice",), values=base + gain),),
            )
            for name, gain in gains.items()
        }
        costs = {
            name: NetworkCost(parameters=88213, macs=number, peak_activation_bytes=1, megabytes=1.0)
            for name, number in (macs or {}).items()
        }
        baseline = "student" if "student" in gains else next(iter(gains))
        return Report(
            baseline=baseline,
            teacher=None,
            cases=Cases(names=cases, reference=None, scheme=scheme_from_values([1]), scheme_source="x"),
            arms=arms,
            rows=analyse(arms, baseline=baseline, teacher=None, resampling=how),
            costs=costs,
            timings={},
            n_patients=None,
            resampling=how,
            hardware="x",
            created="now",
        )

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Report], Figure]:
    """Draw a report and return the figure before it is gone."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(report: Report) -> Figure:
        plot_report(report, tmp_path / "plot.png")
        return figures[-1]

    return draw


def dots(figure: Figure) -> list[np.ndarray[Any, Any]]:
    """Return the x of the dots of each row, from below."""
    return [np.asarray(c.get_offsets())[:, 0] for c in figure.axes[0].collections if len(c.get_offsets()) > 1]


def test_each_dot_is_the_difference_of_one_case(
    report: Callable[..., Report], drawn: Callable[[Report], Figure]
) -> None:
    figure = drawn(report({"teacher": 0.2, "student": 0.0, "kd": 0.1}))
    rows = dots(figure)
    assert [len(row) for row in rows] == [N_CASES, N_CASES]
    np.testing.assert_allclose(rows[0], 0.1)  # the first arm stands on top
    np.testing.assert_allclose(rows[1], 0.2)
    assert len(figure.axes) == 1


def test_cases_without_a_score_are_not_drawn(report: Callable[..., Report], drawn: Callable[[Report], Figure]) -> None:
    assert [len(row) for row in dots(drawn(report({"student": 0.0, "kd": 0.1}, missing=3)))] == [N_CASES - 3]


def test_an_arm_alone_shows_its_scores(report: Callable[..., Report], drawn: Callable[[Report], Figure]) -> None:
    alone = report({"kd": 0.0})
    (row,) = dots(drawn(alone))
    np.testing.assert_allclose(row, alone.arms["kd"].per_case("1", "dice"))


def test_the_second_panel_places_each_model_at_its_cost(
    report: Callable[..., Report], drawn: Callable[[Report], Figure]
) -> None:
    figure = drawn(report({"teacher": 0.1, "student": 0.0, "kd": 0.05}, {"teacher": 10**10, "kd": 10**8}))
    panel = figure.axes[1]
    places = {text.get_text().splitlines()[0]: text.xy for text in panel.texts}  # type: ignore[attr-defined]
    assert places["teacher"][0] == pytest.approx(10.0)
    assert places["kd"][0] == pytest.approx(0.1)
    assert places["teacher"][1] == pytest.approx(places["kd"][1] + 0.05)
    assert "student" not in places
    assert panel.get_xscale() == "log"


def test_arms_of_equal_cost_stand_side_by_side() -> None:
    places = plots._side_by_side({"student": 1.0, "kd": 1.0, "teacher": 50.0})
    assert places["student"] == (1.0, -1)
    assert 1.05 < places["kd"][0] < 1.3
    assert places["teacher"] == (50.0, 1)


def test_an_arm_keeps_its_colour_and_the_baseline_is_grey(report: Callable[..., Report]) -> None:
    made = report({"teacher": 0.1, "student": 0.0, "kd": 0.05})
    styles = {arm: plots._style(made, arm) for arm in made.arms}
    assert styles["student"][0] == plots.GREY
    assert styles["teacher"][0] != styles["kd"][0]
    assert styles["teacher"][1] != styles["kd"][1]
    assert {styles["teacher"][0], styles["kd"][0]} <= set(COLOURS)


@pytest.mark.parametrize("n_arms", [1, 2, 9])
def test_the_png_is_large_enough_to_read_and_no_text_leaves_it(
    report: Callable[..., Report], tmp_path: Path, n_arms: int
) -> None:
    names = ["student", *(f"a method with a long name {number}" for number in range(n_arms - 1))]
    file = tmp_path / "plot.png"
    plot_report(report(dict.fromkeys(names, 0.01), {names[0]: 10**9}), file)
    image = imread(file)[..., :3]
    height, width = image.shape[:2]
    assert width >= 1800
    assert height >= 600
    # the frame of the picture is white: nothing is cut off
    for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
        assert edge.min() == pytest.approx(1.0)


def test_dots_of_equal_value_lie_side_by_side_and_others_on_the_line() -> None:
    offsets = spread_out(np.array([0.5, 0.5, 0.5, 0.9, 0.1]))
    assert sorted(offsets[:3]) == [-1.0, 0.0, 1.0]
    assert offsets[3:].tolist() == [0.0, 0.0]
    assert np.abs(spread_out(np.zeros(500))).max() == 1.0
    assert spread_out(np.zeros(0)).shape == (0,)
