"""What parts a prediction's time has, and what many measurements of them say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# of one case, in the order of work
STAGES = ("load", "preprocess", "network", "resample", "write")
# of one process, before its first case
START_UP = ("libraries", "model")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one quantity.

    Attributes:
        median: Of all of them.
        low: Lower quartile.
        high: Upper quartile.
        n: How many there were.
    """

    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one process of a model took.

    Attributes:
        start_up: Seconds by part, :data:`START_UP`.
        cold: Seconds by stage of the first case, before any other: caches are empty, kernels not chosen yet.
        cases: Seconds by stage, case by case, after that.
        peak_megabytes: Largest memory until the last case was written, 10^6 bytes.
        megabytes_before: The same before the model was opened: libraries only.
    """

    start_up: Mapping[str, float]
    cold: Mapping[str, float]
    cases: Sequence[Mapping[str, float]]
    peak_megabytes: float
    megabytes_before: float


@dataclass(frozen=True, kw_only=True)
class ModelTimes:
    """What a model takes, over all rounds.

    Attributes:
        start_up: Seconds from starting the process until it takes cases.
        start_up_parts: The same for each of :data:`START_UP`.
        case: Seconds from file to file, once the process is warm.
        stages: The same for each of :data:`STAGES`. Medians of parts need not add up to the median of the whole.
        first_mask: Seconds from starting the process until the first label map is written.
        speed: The first model's seconds over this model's, for the same case in the same round: 2 is twice as fast.
        first_mask_speed: The same for ``first_mask``.
        peak_megabytes: Largest memory of the process and what it started.
        megabytes_before: The same before the model was opened.
    """

    start_up: Spread
    start_up_parts: Mapping[str, Spread]
    case: Spread
    stages: Mapping[str, Spread]
    first_mask: Spread
    speed: Spread
    first_mask_speed: Spread
    peak_megabytes: Spread
    megabytes_before: Spread


def spread(values: Iterable[float]) -> Spread:
    """Return median and quartiles; ``nan`` where a measurement is missing.

    Raises:
        ValueError: If there is no value.

    Example:
        >>> spread([1.0, 2.0, 3.0, 4.0, 10.0])
        Spread(median=3.0, low=2.0, high=4.0, n=5)
    """
    numbers = np.array(list(values), dtype=np.float64)
    if not len(numbers):
        raise ValueError("expected at least one measurement, got none")
    low, middle, high = (float(number) for number in np.quantile(numbers, [0.25, 0.5, 0.75]))
    return Spread(median=middle, low=low, high=high, n=len(numbers))


def summarise(rounds: Mapping[str, Sequence[Round]]) -> dict[str, ModelTimes]:
    """Summarise the rounds of several models; the first is what the others are compared with.

    Args:
        rounds: By model; every model as many rounds, with the same cases in the same order.

    Returns:
        By model, in the same order.
    """
    first = next(iter(rounds.values()))
    return {name: _of_model(own, first) for name, own in rounds.items()}


def first_mask(taken: Round) -> float:
    """Return seconds from starting a process until its first label map is written."""
    return sum(taken.start_up.values()) + sum(taken.cold.values())


def _of_model(rounds: Sequence[Round], first: Sequence[Round]) -> ModelTimes:
    cases = [case for taken in rounds for case in taken.cases]
    others = [case for taken in first for case in taken.cases]
    return ModelTimes(
        start_up=spread(sum(taken.start_up.values()) for taken in rounds),
        start_up_parts={part: spread(taken.start_up[part] for taken in rounds) for part in START_UP},
        case=spread(sum(case.values()) for case in cases),
        stages={stage: spread(case[stage] for case in cases) for stage in STAGES},
        first_mask=spread(map(first_mask, rounds)),
        speed=spread(sum(other.values()) / sum(case.values()) for other, case in zip(others, cases, strict=True)),
        first_mask_speed=spread(first_mask(other) / first_mask(own) for other, own in zip(first, rounds, strict=True)),
        peak_megabytes=spread(taken.peak_megabytes for taken in rounds),
        megabytes_before=spread(taken.megabytes_before for taken in rounds),
    )
