"""The processes that torchrun started: who is where, what each knows, and who is left after a loss."""

import hashlib
import json
import os
import signal
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # not in its __all__

JOIN_TIMEOUT = timedelta(minutes=10)  # until every rank is there
PATIENCE = 5.0  # seconds in which the ranks that are left must answer; torchrun kills them after 30


class Stopped(BaseException):
    """SIGTERM arrived: torchrun lost another rank, or the job was cancelled."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands among those that torchrun started.

    Attributes:
        rank: Among all, from 0.
        world_size: Number of all.
        local_rank: On this machine, from 0; the index of the GPU.
        local_world_size: Number on this machine.
        attempt: Number of restarts so far, as this machine counts.
        max_restarts: How many torchrun makes.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    attempt: int = 0
    max_restarts: int = 0


def read_place(example: str) -> Place:
    """Return what torchrun wrote into the environment.

    Args:
        example: What to type, for the error.

    Raises:
        UsageError: If it was not torchrun that started this process.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(os.environ.get(name) for name in (*names, "MASTER_ADDR", "MASTER_PORT")):
        raise UsageError(f"expected to be started by torchrun, which sets RANK and WORLD_SIZE; type: {example}")
    attempt, max_restarts = (
        int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS")
    )
    return Place(**{name.lower(): int(os.environ[name]) for name in names}, attempt=attempt, max_restarts=max_restarts)


def open_store() -> "Store":
    """Return the store that all ranks share; the first machine keeps it."""
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=JOIN_TIMEOUT))[0]
    return store


def meet(store: "Store", place: Place, value: Any) -> tuple["Store", list[Any]]:  # noqa: ANN401  # any JSON value
    """Wait for all ranks and return a clean part of the store and what each rank brought.

    torchrun's store outlives its restarts, and no number that it hands out is the same on all machines
    and new each time. So rank 0 proposes the list of those it sees until all of them agree to it,
    which the dead, whose entries are still there, cannot.

    Args:
        store: Shared by all ranks, with whatever earlier processes left in it.
        place: Of this process.
        value: What the others should know.

    Returns:
        A store in which nobody has written yet, and the values in order of rank.

    Raises:
        UsageError: If a rank does not come within :data:`JOIN_TIMEOUT`.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    own = json.dumps([uuid.uuid4().hex, value])
    store.set(f"hello/{place.rank}", own)
    ranks, end = range(place.world_size), time.monotonic() + JOIN_TIMEOUT.total_seconds()
    while time.monotonic() < end:
        if place.rank == 0 and store.check([f"hello/{rank}" for rank in ranks]):
            store.set("proposal", json.dumps([store.get(f"hello/{rank}").decode() for rank in ranks]))
        proposal = _read(store, "proposal")
        seen, key = json.loads(proposal or "[]"), hashlib.sha256(proposal.encode()).hexdigest()
        if seen[place.rank : place.rank + 1] == [own]:
            store.set(f"agreed/{place.rank}", key)
            if place.rank == 0 and all(_read(store, f"agreed/{rank}") == key for rank in ranks):
                store.set("met", key)
            if _read(store, "met") == key:
                return PrefixStore(key, store), [json.loads(entry)[1] for entry in seen]
        time.sleep(0.05)
    raise UsageError(
        f"expected {place.world_size} processes within {JOIN_TIMEOUT}, some never came; type the same --nnodes, "
        "--nproc-per-node and --rdzv-endpoint on every machine"
    )


def _read(store: "Store", key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def exchange(store: "Store", place: Place, topic: str, value: Any) -> list[Any]:  # noqa: ANN401  # any JSON value
    """Return the values of all ranks, in order of rank. Every rank must call it, once per topic and store."""
    store.set(f"{topic}/{place.rank}", json.dumps(value))
    return [json.loads(store.get(f"{topic}/{rank}")) for rank in range(place.world_size)]


def silent_ranks(store: "Store", place: Place) -> list[int] | None:
    """Return the ranks that do not answer, or ``None`` when the first machine is gone and the store with it."""
    missing, end = set(range(place.world_size)), time.monotonic() + PATIENCE
    try:
        store.set(f"left/{place.rank}", "1")
        while missing and time.monotonic() < end:
            missing = {rank for rank in missing if not store.check([f"left/{rank}"])}
            time.sleep(0.05)
    except RuntimeError:
        return None
    return sorted(missing)


def stop_on_sigterm() -> None:
    """Let SIGTERM raise :class:`Stopped`, so that the process can say what happened before it ends."""
    owner = os.getpid()

    def stop(*_: object) -> None:
        if os.getpid() != owner:
            os._exit(128 + signal.SIGTERM)  # a forked data loader, which inherits this handler
        raise Stopped

    signal.signal(signal.SIGTERM, stop)


def lost_contact(error: BaseException) -> bool:
    """Tell whether an error says that another rank is gone, and not that this one failed."""
    from torch.distributed import DistError

    return isinstance(error, Stopped | DistError) or "gloo" in str(error)
