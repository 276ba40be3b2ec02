"""Medians, quartiles and ratios of what was measured, on numbers written by hand."""

import pytest

from nnunet_kd.deployment.stage_times import STAGES, Round, Spread, first_mask, spread, summarise


def stages(seconds: float) -> dict[str, float]:
    """A case whose network takes all but 0.4 s."""
    return {stage: seconds - 0.4 if stage == "network" else 0.1 for stage in STAGES}


def taken(*cases: float, start: float = 1.0, cold: float = 5.0, peak: float = 100.0) -> Round:
    return Round(
        start_up={"libraries": start, "model": 0.5},
        cold=stages(cold),
        cases=[stages(case) for case in cases],
        peak_megabytes=peak,
        megabytes_before=50.0,
    )


def test_medians_are_over_cases_and_rounds() -> None:
    found = summarise({"a": [taken(1, 2, peak=100), taken(3, 10, start=3, peak=300)]})["a"]
    assert found.case == Spread(median=2.5, low=pytest.approx(1.75), high=pytest.approx(4.75), n=4)
    assert found.stages["network"].median == pytest.approx(2.1)
    assert found.stages["write"].median == pytest.approx(0.1)
    assert (found.start_up.median, found.start_up.n) == (2.5, 2)
    assert found.start_up_parts["libraries"].median == 2
    assert (found.peak_megabytes.median, found.peak_megabytes.high) == (200, 250)


def test_the_speed_is_of_pairs_and_the_first_models_is_1() -> None:
    found = summarise({"a": [taken(10, 40)], "b": [taken(5, 4)]})
    assert found["a"].speed == Spread(median=1, low=1, high=1, n=2)
    assert found["b"].speed.median == pytest.approx((2 + 10) / 2)  # of the ratios; that of the medians would be 5.6


def test_the_first_mask_takes_start_up_and_the_cold_case() -> None:
    assert first_mask(taken(1, start=2, cold=7)) == pytest.approx(9.5)
    found = summarise({"a": [taken(1, start=2, cold=7)], "b": [taken(1, start=0.5, cold=0.9)]})
    assert found["b"].first_mask_speed.median == pytest.approx(9.5 / 1.9)


def test_models_without_the_same_cases_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        summarise({"a": [taken(1, 2)], "b": [taken(1)]})


def test_no_measurement_has_no_spread() -> None:
    with pytest.raises(ValueError, match="none"):
        spread([])
