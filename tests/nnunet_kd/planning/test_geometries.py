"""Claims about the published sizes."""

from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.geometries import GEOMETRIES, with_geometry


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_geometry_changes_patch_and_batch_and_nothing_else(name: str) -> None:
    configuration = {"patch_size": [40, 56, 40], "batch_size": 9, "spacing": [1.0, 1.0, 1.0]}
    changed = with_geometry(configuration, name)
    assert configuration["patch_size"] == [40, 56, 40]
    assert changed.pop("spacing") == [1.0, 1.0, 1.0]
    geometry = GEOMETRIES[name]
    assert changed == {"patch_size": list(geometry.patch), "batch_size": geometry.batch_size}


def test_the_published_sizes_have_their_slices_first() -> None:
    """Heart is 160x160x128 and pancreas 128x128x145 in the authors' order."""
    assert GEOMETRIES["heart"].patch == (128, 160, 160)
    assert GEOMETRIES["pancreas"].patch == (145, 128, 128)


@pytest.mark.parametrize(
    ("name", "patch", "said"),
    [("hart", [8, 8, 8], r"got 'hart' \(did you mean 'heart'\?\)"), ("heart", [8, 8], "the configuration has 2")],
)
def test_what_has_no_geometry_is_refused(name: str, patch: list[int], said: str) -> None:
    configuration: dict[str, Any] = {"patch_size": patch}
    with pytest.raises(UsageError, match=said):
        with_geometry(configuration, name)
