"""Claims about fastMRI's masks: the package's own, stored and live, and what its description promises."""

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask, seed_of

NAMES = ["random", "equispaced", "equispaced_fraction", "magic", "magic_fraction"]
STORED = json.loads((Path(__file__).parent / "fastmri_masks.json").read_text())["masks"]


def settings_of(golden: dict[str, Any], **others: Any) -> SamplingSettings:
    keys = ("mask", "acceleration", "center_fraction", "any_combination", "offset")
    return SamplingSettings(**{key: golden[key] for key in keys}, **others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_masks_are_those_of_fastmri(name: str, axis: str) -> None:
    """The file says how these were drawn from the package fastmri 0.3.0."""
    goldens = [golden for golden in STORED if golden["mask"] == name]
    assert len(goldens) == 30
    for golden in goldens:
        n = golden["n"]
        lines = np.unpackbits(np.frombuffer(bytes.fromhex(golden["lines"]), np.uint8))[:n]
        shape, mask_shape = ((5, n), (1, n)) if axis == "columns" else ((n, 5), (n, 1))
        mask = make_mask(settings_of(golden, axis=axis), shape, seed=seed_of(golden["case"]))
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, lines.reshape(mask_shape), err_msg=str(golden))


@pytest.fixture(scope="module")
def package() -> ModuleType:
    """The package's module of masks alone, so that the package's other dependencies may be missing."""
    found = find_spec("fastmri")
    if found is None or found.origin is None:
        pytest.skip("the package fastmri is not installed")
    spec = spec_from_file_location("fastmri_subsample", Path(found.origin).parent / "data" / "subsample.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_those_of_the_installed_package(name: str, package: ModuleType) -> None:
    classes = dict(zip(NAMES, ("Random", "EquiSpaced", "Equispaced", "Magic", "Magic"), strict=True))
    family = getattr(package, classes[name] + ("MaskFractionFunc" if "fraction" in name else "MaskFunc"))
    fractions, accelerations = [0.08, 0.04, 0.06], [4, 8, 5]
    settings = SamplingSettings(mask=name, center_fraction=tuple(fractions), acceleration=tuple(accelerations))
    for n in (64, 151, 368):
        for case in range(40):
            expected, _ = family(fractions, accelerations)((1, n, 2), seed=seed_of(f"file{case}"))
            ours = make_mask(settings, (1, n), seed=seed_of(f"file{case}"))
            np.testing.assert_array_equal(ours.ravel(), expected.numpy().ravel())


@pytest.mark.parametrize("n", [150, 151, 368])
@pytest.mark.parametrize("name", NAMES)
def test_the_centre_is_sampled_whole(name: str, n: int) -> None:
    n_center = round(0.08 * n)
    start = (n - n_center + 1) // 2
    assert make_mask(SamplingSettings(mask=name), (1, n), seed=3)[0, start : start + n_center].all()


@pytest.mark.parametrize(
    ("name", "tolerance"), [("random", 0.02), ("equispaced_fraction", 0.02), ("magic_fraction", 0.12)]
)
@pytest.mark.parametrize("acceleration", [4, 8])
def test_the_expected_count_is_what_the_acceleration_asks(name: str, tolerance: float, acceleration: int) -> None:
    settings = SamplingSettings(mask=name, acceleration=acceleration)
    counts = [make_mask(settings, (1, 368), seed=seed).sum() for seed in range(400)]
    assert np.mean(counts) == pytest.approx(368 / acceleration, rel=tolerance)


def test_the_plain_equispaced_masks_sample_more_than_asked() -> None:
    """Which is why the true acceleration is reported."""
    for name in ("equispaced", "magic"):
        assert make_mask(SamplingSettings(mask=name), (1, 368), seed=0).sum() > 1.15 * 368 / 4


def test_magic_masks_sample_few_conjugate_pairs() -> None:
    settings = SamplingSettings(mask="magic", n_calibration=0)
    mask = make_mask(settings, (1, 368), seed=0)[0].astype(bool)
    assert not (mask[1:] & mask[1:][::-1]).any()


def test_a_centre_as_large_as_the_acceleration_is_handled() -> None:
    large = {"center_fraction": 0.3, "acceleration": 4}
    with pytest.raises(UsageError, match="30 central of 100 lines leave none for acceleration 4; choose a smaller"):
        make_mask(SamplingSettings(mask="equispaced_fraction", **large), (1, 100), seed=0)
    assert make_mask(SamplingSettings(mask="magic_fraction", **large), (1, 100), seed=0).sum() == 25
    assert make_mask(SamplingSettings(mask="random", **large), (1, 100), seed=0).sum() == 30
    assert make_mask(SamplingSettings(mask="random", center_fraction=1), (1, 100), seed=0).all()
