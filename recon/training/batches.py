"""Which slices make up a step, and their way from the disk to the network while the last step is computed."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from nnunet_kd.recon.data.samples import (
    PreprocessedCases,
    Sample,
    SampleSettings,
    collate,
    make_sample,
    same_size_batches,
)

T = TypeVar("T")

PREFETCHED = 3  # batches


def plan_epoch(
    sizes: Sequence[object], batch_size: int, *, seed: int, epoch: int, n_batches: int | None = None
) -> list[list[int]]:
    """Return the batches of an epoch, the same for the same seed and epoch.

    Args:
        sizes: Of every slice; a batch holds slices of one size.
        batch_size: Largest batch.
        seed: Of the training.
        epoch: Its number.
        n_batches: How many; ``None`` is one pass over the slices.

    Example:
        >>> [len(batch) for batch in plan_epoch(["one"] * 5, 2, seed=0, epoch=0)]
        [2, 2, 1]
    """
    order = _orders(len(sizes), seed, epoch)
    if n_batches is None:
        return list(same_size_batches(sizes, islice(order, len(sizes)), batch_size))
    return list(islice(same_size_batches(sizes, order, batch_size), n_batches))


def _orders(n_slices: int, seed: int, epoch: int) -> Iterator[int]:
    generator = np.random.default_rng([seed, epoch])
    while True:
        yield from generator.permutation(n_slices).tolist()


def share_of_rank(batches: Iterable[list[int]], rank: int, world_size: int) -> list[list[int]]:
    """Return what one of several processes takes of every batch; batches that cannot be halved fairly are left out."""
    return [batch[rank::world_size] for batch in batches if len(batch) % world_size == 0]


def mask_seed(seed: int, epoch: int, step: int, place: int) -> int:
    """Return the seed of the mask of one sample, another for each sample and each time it is seen."""
    return int(np.random.SeedSequence([seed, epoch, step, place]).generate_state(1)[0])


def read_batches(
    cases: PreprocessedCases,
    settings: SampleSettings,
    batches: Sequence[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    rank: int = 0,
) -> Iterator[Sample]:
    """Read an epoch's batches, each sample under a fresh mask unless the plans fix it.

    Args:
        cases: The slices.
        settings: Of the plans.
        batches: Indices into ``cases.items``.
        seed: Of the training.
        epoch: Its number.
        rank: Of this process, so that no two draw the same masks.
    """
    for step, batch in enumerate(batches):
        samples = []
        for place, index in enumerate(batch):
            name, number = cases.items[index]
            data = cases.read(name, number, settings.n_neighbours)
            drawn = mask_seed(seed + rank, epoch, step, place)
            samples.append(make_sample(data, settings, seed=drawn, volume_scale=cases.facts[name].volume_scale))
        yield collate(samples)


def to_device(sample: Sample, device: torch.device) -> Sample:
    """Move a batch; its scale stays."""
    acquisition = type(sample.acquisition)(*(part.to(device, non_blocking=True) for part in sample.acquisition))
    target = None if sample.target is None else sample.target.to(device, non_blocking=True)
    return Sample(acquisition, target, sample.scale)


def prefetched(items: Iterable[T], depth: int = PREFETCHED) -> Iterator[T]:
    """Yield items that a thread makes ahead; its error is raised where the item was expected.

    Args:
        items: What to iterate over, in the thread.
        depth: How many may wait.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="recon-batches") as pool:
        ahead = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(next, iterator, end))
            yield item  # type: ignore[misc]  # a T, not the end
