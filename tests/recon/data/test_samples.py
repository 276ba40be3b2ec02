from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import (
    Sample,
    SampleSettings,
    SliceData,
    collate,
    make_sample,
    neighbour_indices,
    same_size_batches,
)
from nnunet_kd.recon.physics.fourier import kspace_to_image
from nnunet_kd.recon.planning.plans import Normalisation
from nnunet_kd.recon.planning.sampling import planned_sampling

H, W = 24, 32
RANDOM = {"mask": "random", "acceleration": 4, "center_fraction": 0.2}


def _data(n_slices: int = 1, coils: int = 1, **changes: Any) -> SliceData:
    rng = np.random.default_rng(0)
    shape = (n_slices, coils, H, W)
    kspace = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    target = rng.random((H, W)).astype(np.float32)
    return SliceData(**{"kspace": kspace, "name": "volume", "target": target, **changes})


def _settings(sampling: dict[str, Any] | None = None, scheme: str = "max", **changes: Any) -> SampleSettings:
    masks = planned_sampling(RANDOM if sampling is None else sampling)
    defaults = {"sampling": masks, "normalisation": Normalisation(scheme=scheme, percentile=90.0)}
    return SampleSettings(**{**defaults, **changes})


def _mask(data: SliceData, settings: SampleSettings, seed: int | None = None) -> torch.Tensor:
    return make_sample(data, settings, seed=seed).acquisition.mask


@pytest.mark.parametrize("scheme", ["max", "percentile", "reference_max"])
def test_scale_does_not_know_the_target(scheme: str) -> None:
    data, settings = _data(), _settings(scheme=scheme)
    one, other = make_sample(data, settings), make_sample(data._replace(target=100 * data.target), settings)
    assert one.scale == other.scale
    torch.testing.assert_close(one.acquisition.kspace, other.acquisition.kspace)
    torch.testing.assert_close(one.target * one.scale, torch.from_numpy(data.target))


@pytest.mark.parametrize("scheme", ["max", "percentile"])
@pytest.mark.parametrize("coils", [1, 3])
def test_what_is_not_sampled_changes_nothing(scheme: str, coils: int) -> None:
    data, settings = _data(coils=coils), _settings(scheme=scheme)
    sampled = _mask(data, settings).bool().numpy()
    other = make_sample(data._replace(kspace=np.where(sampled, data.kspace, 7)), settings)
    for ours, theirs in zip(make_sample(data, settings).acquisition, other.acquisition, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_published_scale_knows_the_fully_sampled_image() -> None:
    data = _data()
    largest = float(kspace_to_image(torch.from_numpy(data.kspace)).abs().max())
    assert make_sample(data, _settings(scheme="reference_max")).scale == pytest.approx(largest)
    own = data._replace(mask=np.ones(W, np.float32))
    assert make_sample(own, _settings(scheme="reference_max")).scale == pytest.approx(largest)


@pytest.mark.parametrize("scheme", ["max", "percentile"])
def test_everything_is_on_one_scale(scheme: str) -> None:
    (kspace, mask, _, image, context), _, scale = make_sample(_data(3), _settings(scheme=scheme))
    np.testing.assert_allclose(
        kspace * scale, torch.where(mask.bool(), torch.from_numpy(_data(3).kspace[1]), 0), rtol=1e-5
    )
    torch.testing.assert_close(kspace_to_image(kspace)[0], image)
    magnitude = image.abs()
    found = magnitude.max() if scheme == "max" else np.percentile(magnitude, 90)
    assert float(found) == pytest.approx(1, rel=1e-5)
    assert context.shape == (2, H, W)


def test_masks_are_the_volumes_own_unless_a_seed_makes_them_fresh() -> None:
    settings = _settings()
    own = _mask(_data(), settings)
    assert torch.equal(own, _mask(_data(kspace=_data().kspace + 1), settings))
    assert not torch.equal(own, _mask(_data(name="other"), settings))
    fresh = [_mask(_data(), settings, seed) for seed in range(4)]
    assert len({tuple(mask.flatten().tolist()) for mask in fresh}) > 1


def test_fixed_mask_is_the_same_for_all() -> None:
    settings = _settings({**RANDOM, "fixed_seed": 42})
    masks = [_mask(_data(name=name), settings, seed) for name in "ab" for seed in (None, 1, 2)]
    assert all(torch.equal(masks[0], mask) for mask in masks)


@pytest.mark.parametrize(("factor", "kept"), [((4, 4), (6, 8)), ((2, 1), (12, 32))])
def test_super_resolution_keeps_the_centre(factor: tuple[int, int], kept: tuple[int, int]) -> None:
    sample = make_sample(_data(), _settings(sampling=None, factor=factor))
    mask = sample.acquisition.mask.expand(H, W)
    assert int(mask.sum()) == kept[0] * kept[1]
    assert mask[H // 2, W // 2] == 1
    assert sample.acquisition.image.shape == (H, W)
    assert torch.all(sample.acquisition.kspace[0][mask == 0] == 0)


def test_own_mask_and_padding_win() -> None:
    own = np.tile(np.array([1, 0], np.float32), W // 2)
    mask = _mask(_data(mask=own, padding=(4, 20)), _settings(), 5).flatten()
    assert torch.equal(mask.nonzero().flatten(), torch.arange(4, 20, 2))


@pytest.mark.parametrize(
    "change", [{"mask": np.ones(W - 1, np.float32)}, {"kspace": np.zeros((1, 1, H, W), np.complex64)}]
)
def test_data_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"volume, (mask|kspace): expected"):
        make_sample(_data(**change), _settings())


@pytest.mark.parametrize(("crop", "shape"), [(None, (H, W)), ((10, 12), (10, 12)), ((99, 12), (H, 12))])
def test_target_is_cropped_about_its_centre(crop: tuple[int, int] | None, shape: tuple[int, int]) -> None:
    sample = make_sample(_data(), _settings(crop=crop))
    assert sample.target.shape == shape
    assert sample.target[shape[0] // 2, shape[1] // 2] * sample.scale == pytest.approx(_data().target[H // 2, W // 2])


@pytest.mark.parametrize(("index", "found"), [(0, [0, 0, 0, 1, 2]), (1, [0, 0, 1, 2, 3]), (4, [2, 3, 4, 4, 4])])
def test_neighbours_repeat_at_the_ends(index: int, found: list[int]) -> None:
    assert neighbour_indices(index, 5, 2) == found


def test_context_holds_the_neighbours_in_order() -> None:
    data = _data(3)
    context, scale = make_sample(data, _settings()).acquisition.context, make_sample(data, _settings()).scale
    for place, neighbour in ((0, 0), (1, 2)):
        alone = make_sample(data._replace(kspace=data.kspace[[neighbour]]), _settings())
        torch.testing.assert_close(context[place] * scale, alone.acquisition.image * alone.scale)


def test_batches_stack_samples() -> None:
    points = {"mask": "gaussian_2d", "acceleration": 4}
    samples = [make_sample(_data(3), _settings()), make_sample(_data(3), _settings(points))]
    batch = collate(samples)
    assert batch.acquisition.kspace.shape == (2, 1, H, W)
    assert batch.acquisition.mask.shape == (2, H, W)
    assert batch.acquisition.context.shape == (2, 2, H, W)
    assert batch.target.shape == (2, H, W)
    torch.testing.assert_close(batch.scale, torch.tensor([sample.scale for sample in samples]))
    without: list[Sample] = [samples[0], samples[1]._replace(target=None)]
    with pytest.raises(UsageError, match="slices of one size"):
        collate(without)


def test_batches_have_one_size_each() -> None:
    sizes = [(1,), (2,), (1,), (1,), (2,), (3,)]
    batches = list(same_size_batches(sizes, [5, 3, 0, 1, 4, 2], 2))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)
    assert batches[0] == [3, 0]
