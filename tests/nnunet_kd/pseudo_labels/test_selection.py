"""Claims about which pseudo-labels are kept, and in whose folds they are."""

import json
from typing import Any

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_kd.errors import UsageError
from nnunet_kd.pseudo_labels.selection import Judgement, check_limits, left_out
from nnunet_kd.pseudo_labels.splits import mixed_splits

LABELLED, PSEUDO = [f"case_{n}" for n in range(7)], ["b", "a"]


def judged(**confidences: float) -> dict[str, Judgement]:
    return {case: Judgement(confidence=c, disagreement=c / 2) for case, c in confidences.items()}


@pytest.mark.parametrize(
    ("keep_fraction", "max_disagreement", "kept"),
    [
        (1, 1, "abcd"),
        (0.5, 1, "cd"),
        (0.51, 1, "bcd"),  # rounded up
        (0.25, 1, "c"),  # equal to d, and earlier by name
        (1, 0.35, "ab"),
        (1, 0.3, "ab"),  # the limit itself is allowed
        (0.75, 0.3, "b"),
    ],
)
def test_the_most_confident_share_and_no_greater_disagreement(
    keep_fraction: float, max_disagreement: float, kept: str
) -> None:
    cases = judged(d=0.9, c=0.9, b=0.6, a=0.5)
    reasons = left_out(cases, keep_fraction=keep_fraction, max_disagreement=max_disagreement)
    assert sorted({*cases} - {*reasons}) == list(kept)
    assert all(reasons.values())


def test_a_share_that_is_a_whole_number_of_cases_is_not_rounded_up() -> None:
    cases = judged(**{f"c{n:02d}": n / 100 for n in range(100)})
    assert 0.07 * 100 > 7
    assert len(cases) - len(left_out(cases, keep_fraction=0.07)) == 7


@pytest.mark.parametrize("limits", [(0, 1), (1.1, 1), (float("nan"), 1), (1, -0.1), (1, 2)])
def test_limits_that_mean_nothing_are_refused(limits: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"^--(keep-fraction|max-disagreement): expected .* got"):
        check_limits(*limits)


def own_splits() -> list[dict[str, list[str]]]:
    return generate_crossval_split(LABELLED, seed=12345, n_splits=5)


@pytest.mark.parametrize("existing", [None, [{"train": ["case_0", "case_1"], "val": ["case_2"]}]])
def test_pseudo_cases_train_in_every_fold_and_are_never_validated_on(existing: Any) -> None:
    splits = mixed_splits(LABELLED[::-1], PSEUDO, existing)
    expected = existing or own_splits()
    assert [fold["val"] for fold in splits] == [list(fold["val"]) for fold in expected]
    assert [fold["train"] for fold in splits] == [[*fold["train"], "a", "b"] for fold in expected]
    json.dumps(splits)


@pytest.mark.parametrize(
    ("labelled", "existing", "message"),
    [
        (LABELLED[:4], None, "at least 5 cases"),
        (LABELLED, [{"train": ["case_9"], "val": []}], "names case_9"),
        (LABELLED, [], "expected folds"),
        (LABELLED, {"train": []}, "expected folds"),
    ],
)
def test_folds_that_cannot_be_used_are_refused(labelled: list[str], existing: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mixed_splits(labelled, PSEUDO, existing)
