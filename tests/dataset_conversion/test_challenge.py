"""Claims about descriptions of data sets."""

from dataclasses import replace
from typing import Any

import pytest

from nnunet_kd.dataset_conversion.challenge import DatasetDescription

DESCRIPTION = DatasetDescription(
    dataset_id=9,
    name="Toy",
    channel_names=("T1",),
    labels={"background": 0, "core": 1},
    licence="CC0-1.0",
    reference="made here",
    release="1",
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a__b"}, "single '_'"),
        ({"labels": {"background": 1}}, "must be 0"),
        ({"labels": {"background": 0, "tumour": 2}}, "consecutive"),
    ],
    ids=str,
)
def test_description_that_nnunet_would_refuse_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DESCRIPTION, **changes)
