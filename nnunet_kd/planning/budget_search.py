"""The largest student that keeps a budget, found with few measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_number

STAGES = ("load", "preprocess", "window", "resample", "write")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A student that could be planned.

    Attributes:
        place: Coordinates in the lattice. No student costs less than one that is at most as large in each of them.
        parameters: Of the network.
        resolution: Voxels per volume, as a share of what the finest candidate sees, above 0 and at most 1.
        name: In a few words.
    """

    place: tuple[float, ...]
    parameters: int
    resolution: float = 1.0
    name: str = field(default="", compare=False)

    @property
    def size(self) -> float:
        """What "the largest" means: parameters times resolution."""
        return self.parameters * self.resolution

    @property
    def least_megabytes(self) -> float:
        """The weights alone in float32, which no exported file is smaller than, 10^6 bytes."""
        return 4 * self.parameters / 1e6

    def reaches(self, other: "Candidate") -> bool:
        """Return whether this is at least as large as another in every coordinate."""
        return all(ours >= theirs for ours, theirs in zip(self.place, other.place, strict=True))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What predicting one case with a candidate takes in a warm process.

    Attributes:
        stages: Seconds by part, :data:`STAGES`; ``window`` is cutting and summing tiles without the network.
        tile_seconds: Of the network for one tile.
        n_tiles: Of the case.
        start_up: Seconds from starting the process until the network is loaded; not part of a case.
        peak_megabytes: Largest memory of the process, 10^6 bytes.
        file_megabytes: The exported network's files, 10^6 bytes.
    """

    stages: Mapping[str, float]
    tile_seconds: float
    n_tiles: int
    start_up: float
    peak_megabytes: float
    file_megabytes: float

    def __post_init__(self) -> None:
        if not isinstance(self.stages, Mapping) or set(self.stages) != set(STAGES):
            raise UsageError(f"stages: expected {', '.join(STAGES)}, got {self.stages!r:.80}")
        for name, seconds in self.stages.items():
            check_number(seconds, name, at_least=0)
        check_number(self.n_tiles, "n_tiles", at_least=1, whole=True)
        for name in ("tile_seconds", "start_up", "peak_megabytes", "file_megabytes"):
            check_number(getattr(self, name), name, at_least=0)

    @property
    def network_seconds(self) -> float:
        """All tiles through the network."""
        return self.n_tiles * self.tile_seconds

    @property
    def seconds(self) -> float:
        """From file to file: the sum of all stages."""
        return sum(self.stages.values()) + self.network_seconds


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A budget; ``inf`` where there is none.

    Attributes:
        seconds: Of a case, start-up apart.
        memory: Largest memory, 10^6 bytes.
        megabytes: Exported file, 10^6 bytes.
    """

    seconds: float = inf
    memory: float = inf
    megabytes: float = inf

    def over(self, found: Measurement) -> dict[str, float]:
        """Return how many times each amount is of its limit, where it is more than that."""
        return {name: share for name, share in self.shares(found).items() if share > 1}

    def shares(self, found: Measurement) -> dict[str, float]:
        """Return each amount over its limit."""
        amounts = {
            "seconds": (found.seconds, self.seconds),
            "memory": (found.peak_megabytes, self.memory),
            "megabytes": (found.file_megabytes, self.megabytes),
        }
        return {name: amount / limit for name, (amount, limit) in amounts.items()}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search came to.

    Attributes:
        candidates: All, the smallest first.
        limits: The budget.
        measured: Those that were measured, in that order.
        chosen: The largest that keeps the budget; ``None`` if none does.
    """

    candidates: tuple[Candidate, ...]
    limits: Limits
    measured: Mapping[Candidate, Measurement]
    chosen: Candidate | None

    def cheapest(self) -> Candidate | None:
        """Return the measured candidate that is nearest to the budget; ``None`` if nothing was measured."""
        return min(self.measured, key=lambda c: max(self.limits.shares(self.measured[c]).values()), default=None)


def search(candidates: Sequence[Candidate], limits: Limits, measure: Callable[[Candidate], Measurement]) -> Found:
    """Find the largest candidate that keeps the budget.

    A measured candidate that keeps the budget closes all that stand before it in the order of size; one that does not
    closes all that reach it in every coordinate. The next to be measured is one that closes many either way: the
    bisection of a partial order. The answer is that of measuring every candidate, as long as none that is larger in
    every coordinate costs less.

    Args:
        candidates: In any order; places are different.
        limits: The budget.
        measure: Called at most once for a candidate; equal answers give an equal result.
    """
    ordered = tuple(sorted(candidates, key=lambda c: (c.size, c.place)))
    pending = [c for c in ordered if c.least_megabytes <= limits.megabytes]
    measured: dict[Candidate, Measurement] = {}
    chosen = None
    while pending:
        index = max(range(len(pending)), key=lambda place: _closes(pending, place))
        probe = pending[index]
        measured[probe] = measure(probe)
        if limits.over(measured[probe]):
            pending = [c for c in pending if not c.reaches(probe)]
        else:
            chosen, pending = probe, pending[index + 1 :]
    return Found(candidates=ordered, limits=limits, measured=measured, chosen=chosen)


def _closes(pending: Sequence[Candidate], index: int) -> float:
    """Return the harmonic mean of how many candidates a measurement closes if it keeps the budget and if not."""
    before, above = index + 1, sum(c.reaches(pending[index]) for c in pending)
    return 2 * before * above / (before + above)
