"""Claims about one phantom."""

import numpy as np
import pytest

from nnunet_kd.phantoms import phantom_case

SHAPES = pytest.mark.parametrize("shape", [(24, 28, 20), (1, 40, 40), (8, 40, 40)], ids=str)
SEEDS = range(20)


@SHAPES
def test_both_structures_are_in_every_case(shape: tuple[int, int, int]) -> None:
    for seed in SEEDS:
        _, label = phantom_case(seed, shape=shape)
        assert np.bincount(label.ravel(), minlength=3).min() >= 4


@SHAPES
def test_inner_structure_never_touches_the_background(shape: tuple[int, int, int]) -> None:
    """A background voxel beside an inner one would break the nesting that the regions need."""
    _, label = phantom_case(3, shape=shape)
    for axis in range(3):
        low, high = np.delete(label, -1, axis), np.delete(label, 0, axis)
        assert not (np.minimum(low, high) == 0)[np.maximum(low, high) == 2].any()


def test_same_seed_gives_the_same_case() -> None:
    first, second = (phantom_case((1, 2), shape=(16, 16, 16)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_another_seed_gives_another_anatomy() -> None:
    first, second = (phantom_case(seed, shape=(16, 16, 16))[1] for seed in (1, 2))
    assert (first != second).any()


def test_size_varies_between_cases() -> None:
    volumes = [(phantom_case(seed, shape=(24, 24, 24))[1] > 0).mean() for seed in SEEDS]
    assert max(volumes) > 3 * min(volumes)


def test_brightness_alone_does_not_tell_the_structures() -> None:
    """Most voxels as dark as the inner structure, or as bright as the outer one, are something else."""
    precisions = []
    for seed in SEEDS:
        image, label = phantom_case(seed, shape=(32, 32, 32))
        dark = image[0] < np.median(image[0][label == 2])
        bright = image[0] > np.median(image[0][label == 1])
        precisions.append([(label[dark] == 2).mean(), (label[bright] == 1).mean()])
    assert (np.mean(precisions, axis=0) < 0.5).all()


def test_structures_differ_in_brightness_on_average() -> None:
    """Without this nothing could be learnt."""
    means = []
    for seed in SEEDS:
        image, label = phantom_case(seed, shape=(24, 24, 24))
        means.append([image[0][label == k].mean() for k in (2, 0, 1)])
    assert (np.diff(np.mean(means, axis=0)) > 0.5).all()


def test_channels_show_one_anatomy_with_different_contrast() -> None:
    image, label = phantom_case(5, shape=(24, 24, 24), n_channels=2)
    first, second = (volume[label == 2].mean() - volume[label == 1].mean() for volume in image)
    assert first < 0 < second


def test_grid_too_coarse_for_two_structures_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        phantom_case(0, shape=(2, 2, 2))
