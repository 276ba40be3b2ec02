"""Claims about all masks, and about their settings."""

import json
from typing import Any, get_args

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import read_block, write_block
from nnunet_kd.recon.physics.masks import MASKS, SamplingSettings, make_mask, seed_of
from nnunet_kd.recon.physics.masks.settings import MaskName

DRAWN = sorted(set(MASKS) - {"file"})


def test_every_name_has_a_family() -> None:
    assert tuple(MASKS) == get_args(MaskName)


@pytest.mark.parametrize("shape", [(32, 30), (33, 31)], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_fixes_the_mask(name: str, shape: tuple[int, int]) -> None:
    settings = SamplingSettings(mask=name, n_calibration=3)
    first, again = (make_mask(settings, shape, seed=seed_of("case")) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert set(np.unique(first)) == {0, 1}
    assert all(size in (1, full) for size, full in zip(first.shape, shape, strict=True))
    assert first[min(first.shape[0] - 1, shape[0] // 2), shape[1] // 2] == 1
    fresh = {make_mask(settings, shape, seed=None).tobytes() for _ in range(20)}
    assert len(fresh) > 1


def test_drawing_leaves_numpys_own_generator_alone() -> None:
    np.random.seed(0)  # noqa: NPY002  # it is what must not move
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    make_mask(SamplingSettings(), (8, 64), seed=None)
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


def test_several_accelerations_are_drawn_with_their_centres() -> None:
    settings = SamplingSettings(acceleration=(4, 16), center_fraction=(0.3, 0.02))
    counts = [make_mask(settings, (1, 200), seed=seed)[0, 70:130].sum() for seed in range(60)]
    wide = [count for count in counts if count == 60]
    assert 15 < len(wide) < 45
    assert max(set(counts) - {60}) < 25


def test_centre_fractions_default_to_those_of_the_challenge() -> None:
    assert SamplingSettings(acceleration=(4, 8, 16, 32)).center_fractions == (0.08, 0.04, 0.02, 0.01)


@pytest.mark.parametrize(
    "block",
    [{}, {"mask": "magic", "acceleration": 4}, {"acceleration": [4, 8], "center_fraction": [0.08, 0.04]}],
    ids=["defaults", "number", "lists"],
)
def test_settings_survive_json(block: dict[str, Any]) -> None:
    settings = read_block(SamplingSettings, block, "sampling")
    assert read_block(SamplingSettings, json.loads(json.dumps(write_block(settings))), "sampling") == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": "equispace"}, r"mask: expected one of .*got 'equispace' \(did you mean 'equispaced'\?\)"),
        ({"axis": 1}, "axis: expected one of columns, rows, got 1"),
        ({"acceleration": 0.5}, "acceleration: expected a number >= 1, got 0.5"),
        ({"acceleration": []}, "acceleration: expected at least one number"),
        ({"mask": "equispaced", "acceleration": 2.5}, "mask 'equispaced' expects a whole number, got 2.5"),
        ({"center_fraction": 1.5}, "center_fraction: expected a number >= 0 and <= 1, got 1.5"),
        ({"acceleration": [4, 8], "center_fraction": 0.08}, "expected one for each of 2 accelerations, got 1"),
        ({"n_calibration": 2.5}, "n_calibration: expected a whole number >= 0, got 2.5"),
        ({"density_std": 0.001}, "density_std: expected a number >= 0.02, got 0.001"),
        ({"offset": -1}, "offset: expected a whole number >= 0, got -1"),
        ({"mask": "file"}, "'mask': 'file' and 'file' need each other, got file and None"),
        ({"mask": "file", "file": 5}, "file: expected a text, got 5"),
        ({"file": "mask.npy"}, "need each other, got random and mask.npy"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingSettings(**settings)
