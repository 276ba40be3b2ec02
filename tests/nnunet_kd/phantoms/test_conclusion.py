"""Claims about the words a demo ends with."""

from typing import Any

import pytest

from nnunet_kd.phantoms.conclusion import table, verdict


def _content(low: float, high: float, share: float | None = 0.4) -> dict[str, Any]:
    def estimate(value: float | None, low: float, high: float) -> dict[str, float | None]:
        return {"value": value, "low": low, "high": high}

    rows = [
        {"metric": "dice", "arm": arm, "mean": estimate(mean, mean - 0.02, mean + 0.02), "difference": None}
        for arm, mean in (("teacher", 0.9), ("student", 0.7), ("distilled", 0.75))
    ]
    rows[2] |= {"difference": estimate((low + high) / 2, low, high), "share": estimate(share, 0, 1)}
    costs = {"teacher": {"parameters": 640_000}, "student": {"parameters": 10_000}, "distilled": {"parameters": 10_000}}
    return {"rows": rows, "costs": costs, "cases": ["a", "b"]}


def test_table_has_a_line_per_arm_with_its_interval() -> None:
    head, *lines = table(_content(0.01, 0.03))
    assert "2 held-out cases" in head
    assert [line.split() for line in lines][2] == ["distilled", "10,000", "0.750", "0.730", "to", "0.770"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.03, "Distillation helped"), (-0.01, 0.03, "No gain"), (-0.05, -0.01, "did harm")],
)
def test_verdict_says_no_more_than_the_interval(low: float, high: float, words: str) -> None:
    assert words in verdict(_content(low, high))


def test_gap_is_named_where_there_is_one() -> None:
    assert "40 % of the way to its 64 times larger teacher" in verdict(_content(0.01, 0.03))
    assert "%  of" not in verdict(_content(0.01, 0.03, share=None))
    assert "of the way" not in verdict(_content(0.01, 0.03, share=None))
