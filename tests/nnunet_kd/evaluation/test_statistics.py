"""Claims about the paired statistics, against values known beforehand."""

import sys
from subprocess import run

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student_t

from nnunet_kd.evaluation.statistics import (
    Resampling,
    average_runs,
    mean_with_interval,
    paired_difference,
    run_spread,
    share_of_gap,
    wilcoxon_p,
)

NAN = float("nan")


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def scores(random: np.random.Generator, n: int = 30) -> NDArray[np.float64]:
    return random.beta(8, 2, size=n)


def test_the_mean_leaves_missing_cases_out_and_counts_the_rest() -> None:
    estimate = mean_with_interval([0.25, NAN, 0.75])
    assert (estimate.value, estimate.n_cases, estimate.n_groups) == (0.5, 2, 2)
    assert 0.25 <= estimate.low < 0.5 < estimate.high <= 0.75


def test_intervals_agree_with_students_t_on_normal_data(random: np.random.Generator) -> None:
    values = random.normal(3.0, 1.0, size=200)
    low, high = student_t.interval(0.95, 199, values.mean(), values.std(ddof=1) / np.sqrt(200))
    estimate = mean_with_interval(values)
    assert estimate.low == pytest.approx(low, abs=0.02)
    assert estimate.high == pytest.approx(high, abs=0.02)


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_intervals_cover_the_truth_as_often_as_they_say(method: str, random: np.random.Generator) -> None:
    """300 skewed data sets of 40 cases: 95 % nominal, binomial spread about 1.3 points."""
    how = Resampling(n_resamples=800, method=method)  # type: ignore[arg-type]
    estimates = [mean_with_interval(random.beta(8, 2, size=40), resampling=how) for _ in range(300)]
    covered = np.mean([estimate.low <= 0.8 <= estimate.high for estimate in estimates])
    assert 0.90 <= covered <= 0.98


def test_intervals_over_patients_cover_where_intervals_over_cases_do_not(random: np.random.Generator) -> None:
    """Four volumes of each of 25 patients, alike within a patient."""
    patients = np.repeat(np.arange(25), 4)
    how, covered = Resampling(n_resamples=500), {"cases": 0, "patients": 0}
    for _ in range(150):
        values = random.normal(size=25)[patients] + 0.3 * random.normal(size=100)
        for name, groups in (("cases", None), ("patients", list(patients))):
            estimate = mean_with_interval(values, groups=groups, resampling=how)
            covered[name] += estimate.low <= 0.0 <= estimate.high
    assert covered["patients"] > 0.87 * 150
    assert covered["cases"] < 0.80 * 150


def test_every_case_as_its_own_patient_changes_nothing(random: np.random.Generator) -> None:
    values = scores(random)
    assert mean_with_interval(values, groups=[f"p{i}" for i in range(30)]) == mean_with_interval(values)


def test_patients_of_unequal_size_keep_the_mean_over_cases() -> None:
    estimate = mean_with_interval([0.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"])
    assert (estimate.value, estimate.n_cases, estimate.n_groups) == (0.25, 4, 2)


def test_equal_seeds_give_equal_intervals(random: np.random.Generator) -> None:
    values = scores(random)
    first, second, other = (mean_with_interval(values, resampling=Resampling(seed=s)) for s in (1, 1, 2))
    assert first == second != other


def test_constant_values_have_an_interval_of_no_width() -> None:
    estimate = mean_with_interval([0.5] * 8)
    assert (estimate.low, estimate.high) == (0.5, 0.5)


def test_two_cases_that_mirror_each_other_still_have_an_interval() -> None:
    estimate = mean_with_interval([0.0, 1.0])
    assert (estimate.low, estimate.high) == (0.0, 1.0)


@pytest.mark.parametrize(("values", "n"), [([], 0), ([NAN, NAN], 0), ([0.5], 1)])
def test_too_few_cases_give_nan_intervals_and_no_error(values: list[float], n: int) -> None:
    estimate = mean_with_interval(values)
    assert estimate.n_cases == n
    assert np.isnan([estimate.low, estimate.high]).all()
    assert bool(estimate.reason) == (n == 0)


def test_identical_arms_do_not_differ(random: np.random.Generator) -> None:
    values = scores(random)
    difference = paired_difference(values, values)
    assert (difference.value, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_arms_mirrors_difference_and_keeps_p(random: np.random.Generator) -> None:
    one, two = scores(random), scores(random)
    there, back = (
        paired_difference(*pair, resampling=Resampling(method="percentile")) for pair in ((one, two), (two, one))
    )
    assert back.value == pytest.approx(-there.value)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=2e-3)
    assert back.p == there.p


def test_pairing_finds_a_gain_that_unpaired_intervals_hide(random: np.random.Generator) -> None:
    baseline = scores(random)
    better = baseline + random.normal(0.01, 0.005, size=30)
    difference = paired_difference(better, baseline)
    assert 0 < difference.low < 0.01 < difference.high
    assert difference.p < 1e-4
    assert mean_with_interval(better).low < mean_with_interval(baseline).high


def test_a_case_missing_in_one_arm_leaves_the_pair(random: np.random.Generator) -> None:
    one, two = scores(random), scores(random)
    expected = paired_difference(one[1:-1], two[1:-1])
    one[0], two[-1] = NAN, NAN
    assert paired_difference(one, two) == expected


def test_arms_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one value per case"):
        paired_difference([1.0, 2.0], [1.0])


def test_the_p_value_is_that_of_the_table() -> None:
    """Five pairs of one sign: 2 of 2^5 equally likely sign patterns are as extreme."""
    assert wilcoxon_p([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 32)
    assert wilcoxon_p([1.0, 2.0, 3.0, 4.0, 5.0, 0.0, NAN]) == pytest.approx(2 / 32)


def test_volumes_of_one_patient_give_one_sign_only() -> None:
    patients = np.repeat(np.arange(5), 10)
    difference = paired_difference(np.arange(1.0, 6.0)[patients], np.zeros(50), groups=list(patients))
    assert difference.p == pytest.approx(2 / 32)


def test_the_share_of_a_known_gap_is_found(random: np.random.Generator) -> None:
    student = scores(random)
    teacher = student + random.normal(0.10, 0.01, size=30)
    kd = student + random.normal(0.03, 0.01, size=30)
    share = share_of_gap(kd, student, teacher)
    assert share.low < 0.3 < share.high
    assert share.high - share.low < 0.15
    assert share.value == pytest.approx((kd.mean() - student.mean()) / (teacher.mean() - student.mean()))


def test_the_share_does_not_ask_which_direction_is_better(random: np.random.Generator) -> None:
    student, step = scores(random), random.normal(0.1, 0.01, size=30)
    upwards = share_of_gap(student + step / 2, student, student + step)
    downwards = share_of_gap(student - step / 2, student, student - step)
    assert upwards.value == pytest.approx(downwards.value) == pytest.approx(0.5)


def test_student_and_teacher_have_shares_0_and_1(random: np.random.Generator) -> None:
    student = scores(random)
    teacher = student + random.normal(0.10, 0.01, size=30)
    for arm, expected in ((student, 0.0), (teacher, 1.0)):
        share = share_of_gap(arm, student, teacher)
        assert (share.value, share.low, share.high) == pytest.approx((expected, expected, expected))


def test_a_case_missing_in_one_of_three_arms_leaves_the_share(random: np.random.Generator) -> None:
    student = scores(random)
    kd, teacher = student + 0.05, student + random.normal(0.10, 0.01, size=30)
    expected = share_of_gap(kd[1:], student[1:], teacher[1:])
    teacher[0] = NAN
    assert share_of_gap(kd, student, teacher) == expected


def test_a_gap_that_few_cases_carry_still_has_an_interval() -> None:
    """Only 7 of 40 cases differ: samples without any of them have no share at all."""
    student, teacher = np.zeros(40), np.zeros(40)
    teacher[:7] = np.arange(1.0, 8.0)
    share = share_of_gap(teacher * np.linspace(0.2, 0.8, 40), student, teacher)
    assert 0.2 <= share.low < share.value < share.high <= 0.8


def test_no_share_is_named_where_the_gap_may_be_zero(random: np.random.Generator) -> None:
    student = scores(random)
    share = share_of_gap(student + 0.1, student, student + random.normal(0.0, 0.1, size=30))
    assert np.isnan(share.value)
    assert "contains 0" in share.reason


def test_runs_are_averaged_case_by_case() -> None:
    runs = [[0.2, 0.6, NAN], [0.4, NAN, NAN]]
    np.testing.assert_allclose(average_runs(runs), [0.3, 0.6, NAN])


def test_the_spread_is_that_of_the_runs_means() -> None:
    spread = run_spread([[0.2, 0.4], [0.4, 0.6], [0.6, NAN]])
    assert spread.means == pytest.approx((0.3, 0.5, 0.6))
    assert spread.standard_deviation == pytest.approx(np.std([0.3, 0.5, 0.6], ddof=1))
    assert np.isnan(run_spread([[0.2, 0.4]]).standard_deviation)


def test_the_statistics_import_neither_torch_nor_nnunet() -> None:
    code = "import sys, nnunet_kd.evaluation.statistics; sys.exit(bool({'torch', 'nnunetv2'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
