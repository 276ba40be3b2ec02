"""Claims about the label of an ensemble and how far it is trusted."""

from itertools import combinations

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray

from nnunet_kd.evaluation.labels import Structure
from nnunet_kd.pseudo_labels.ensemble import confidence, decide, disagreement, mean_probabilities

CLASSES = [Structure(name="one", labels=(1,)), Structure(name="two", labels=(2,))]


def one_hot(label: int) -> NDArray[np.float32]:
    return np.eye(4, dtype=np.float32)[label][:, None]


def random_probabilities(n: int, *, seed: int = 0) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).exponential(size=(n, 6, 5, 4)).astype(np.float32)
    return raw / raw.sum(axis=0)


@pytest.mark.parametrize(
    ("votes", "winner"),
    [([3, 3, 3, 3, 1, 0], 3), ([2, 1, 2, 0, 1, 2], 2), ([3, 3, 3, 1, 1, 1], 1), ([3, 0, 3, 0, 2, 2], 0)],
)
def test_six_sure_members_vote_and_ties_go_to_the_lowest_class(votes: list[int], winner: int) -> None:
    mean = mean_probabilities((1.0, one_hot(vote)) for vote in votes)
    assert decide(mean, None)[0].tolist() == [winner]


def test_a_weight_counts_as_that_many_members() -> None:
    a, b = random_probabilities(3), random_probabilities(3, seed=1)
    twice = mean_probabilities([(1.0, a), (1.0, b), (1.0, b)])
    np.testing.assert_allclose(mean_probabilities([(0.5, a), (1.0, b)]), twice, atol=1e-6)
    np.testing.assert_allclose(twice.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("order", [None, [1, 2], [2, 1]])
def test_labels_are_those_that_nnunet_makes_of_the_mean(order: list[int] | None) -> None:
    labels = {"background": 0, "whole": (1, 2), "core": 2} if order else {"background": 0, "one": 1, "two": 2}
    mean = random_probabilities(2 if order else 3)
    expected = LabelManager(labels, order).convert_probabilities_to_segmentation(mean)
    found, _ = decide(mean, order)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1


def test_confidence_is_the_mean_probability_of_the_label_within_it() -> None:
    mean = random_probabilities(3)
    label, probability = decide(mean, None)
    own = [mean[(label[at], *at)] for at in np.ndindex(label.shape) if label[at]]
    assert confidence(label, probability) == pytest.approx(sum(map(float, own)) / len(own), abs=1e-6)


def test_a_region_is_as_probable_as_the_one_that_painted_the_voxel_last() -> None:
    mean = np.float32([[0.9, 0.8, 0.2], [0.7, 0.1, 0.4]])
    label, probability = decide(mean, [1, 2])
    assert label.tolist() == [2, 1, 0]
    np.testing.assert_allclose(probability, [0.7, 0.8, 0.6])


@pytest.mark.parametrize(("order", "mean"), [(None, [[0.9, 0.6], [0.1, 0.4]]), ([1], [[0.1, 0.4]])])
def test_an_empty_label_is_as_sure_as_its_least_sure_voxel(order: list[int] | None, mean: list[list[float]]) -> None:
    assert confidence(*decide(np.float32(mean), order)) == pytest.approx(0.6)


def test_disagreement_is_the_missing_part_of_the_mean_pairwise_dice() -> None:
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, (5, 6, 7)).astype(np.uint8) for _ in range(3)]
    scores = []
    for value, (a, b) in ((v, pair) for v in (1, 2) for pair in combinations(labels, 2)):
        scores.append(2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum()))
    assert disagreement(labels, CLASSES) == pytest.approx(1 - np.mean(scores))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 1, 2]], 0),  # one member
        ([[0, 0], [0, 0]], 0),  # nobody found anything
        ([[1, 0], [1, 0]], 0),  # class 2 is nobody's and does not count
        ([[1, 0], [0, 0]], 1),
        ([[1, 0], [0, 1]], 1),
        ([[1, 0], [0, 0], [0, 0]], 2 / 3),  # the two that found nothing agree
    ],
)
def test_disagreement_at_its_ends(labels: list[list[int]], expected: float) -> None:
    assert disagreement([np.array(label) for label in labels], CLASSES) == pytest.approx(expected)


def test_regions_disagree_as_regions() -> None:
    whole, core = Structure(name="whole", labels=(1, 2)), Structure(name="core", labels=(2,))
    labels = [np.array([1, 2, 2, 0]), np.array([1, 1, 2, 0])]
    assert disagreement(labels, [whole, core]) == pytest.approx(1 - (1 + 2 / 3) / 2)
