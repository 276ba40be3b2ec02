import threading
from collections.abc import Iterator

import pytest

from nnunet_kd.recon.training.batches import mask_seed, plan_epoch, prefetched, share_of_rank


def test_one_pass_has_every_slice_once_in_batches_of_one_size() -> None:
    sizes = ["a", "b", "a", "a", "b", "a", "a"]
    batches = plan_epoch(sizes, 2, seed=0, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert all(len({sizes[index] for index in batch}) == 1 for batch in batches)


def test_order_belongs_to_seed_and_epoch() -> None:
    orders = [plan_epoch(["a"] * 9, 1, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3] != orders[0]


@pytest.mark.parametrize("n_batches", [1, 4, 11])
def test_any_number_of_steps(n_batches: int) -> None:
    batches = plan_epoch(["a"] * 5, 2, seed=0, epoch=0, n_batches=n_batches)
    assert [len(batch) for batch in batches] == [2] * n_batches
    assert len({index for batch in batches[:3] for index in batch}) == min(5, 2 * n_batches)


def test_ranks_share_a_batch() -> None:
    batches = [[0, 1, 2, 3], [4, 5]]
    assert share_of_rank(batches, 0, 2) == [[0, 2], [4]]
    assert share_of_rank(batches, 1, 2) == [[1, 3], [5]]
    assert share_of_rank(batches, 0, 4) == [[0]]  # two slices cannot feed four


def test_no_two_masks_share_a_seed() -> None:
    seeds = [mask_seed(s, e, step, p) for s in range(3) for e in range(3) for step in range(5) for p in range(4)]
    assert len(set(seeds)) == len(seeds)


def test_prefetching_keeps_the_order_and_passes_on_errors() -> None:
    assert list(prefetched(range(20), depth=3)) == list(range(20))

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    found = prefetched(broken())
    assert next(found) == 1
    with pytest.raises(OSError, match="disk"):
        next(found)


def test_prefetching_works_ahead_in_one_thread_and_stops() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            assert threading.current_thread() is not threading.main_thread()
            made.append(number)
            yield number

    found = prefetched(items(), depth=2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert len(made) <= 4
