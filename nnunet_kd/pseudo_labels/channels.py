"""Which channel of the pool is which channel of the teachers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_kd.errors import UsageError

# what BraTS called its four images over the years, and the Decathlon since
_SYNONYMS = {
    **dict.fromkeys(("t1w", "t1n"), "t1"),
    **dict.fromkeys(("t1gd", "t1ce", "t1post"), "t1c"),
    "t2w": "t2",
    **dict.fromkeys(("t2f", "t2flair"), "flair"),
}


def same_name(name: str) -> str:
    """Return one spelling for all names of a channel.

    Example:
        >>> same_name("T1Gd") == same_name("t1ce") == same_name("T1-c")
        True
        >>> same_name("T1") == same_name("T1c")
        False
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SYNONYMS.get(plain, plain) or name


def channel_names(dataset_json: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channels of a dataset.json in their order; none where it names none. The Decathlon says ``modality``.

    Example:
        >>> channel_names({"modality": {"0": "FLAIR", "1": "T1w"}})
        ('FLAIR', 'T1w')
    """
    names = dataset_json.get("channel_names", dataset_json.get("modality"))
    if not isinstance(names, Mapping):
        return ()
    return tuple(str(names[key]) for key in sorted(names, key=lambda key: (len(str(key)), str(key))))


def by_name(pool: Sequence[str], teachers: Sequence[str]) -> tuple[int, ...]:
    """Find the teachers' channels among the pool's, whatever their spelling.

    Args:
        pool: Names of the pool's channels.
        teachers: Names of the teachers' channels.

    Returns:
        For every channel of the teachers the number of the pool's.

    Raises:
        UsageError: If one is missing, or a name is given to several.

    Example:
        >>> by_name(["FLAIR", "T1w", "t1gd", "T2w"], ["T1", "T1ce", "T2", "Flair"])
        (1, 2, 3, 0)
    """
    theirs, ours = [same_name(name) for name in pool], [same_name(name) for name in teachers]
    if theirs == ours:
        return tuple(range(len(ours)))
    if len({*ours}) < len(ours) or any(theirs.count(name) != 1 for name in ours):
        raise UsageError(
            f"expected the teachers' channels {', '.join(teachers)} in the pool, its dataset.json names "
            f"{', '.join(pool)}; say which is which with --channel-order, e.g. --channel-order 1,2,3,0"
        )
    return tuple(theirs.index(name) for name in ours)


def parse_order(text: str, n_channels: int) -> tuple[int, ...]:
    """Read ``--channel-order``.

    Args:
        text: Numbers of the pool's channels, from 0, in the teachers' order.
        n_channels: How many the teachers have.

    Raises:
        UsageError: If these are not as many different numbers.

    Example:
        >>> parse_order("1,2,3,0", 4)
        (1, 2, 3, 0)
    """
    words = text.replace(" ", "").split(",")
    numbers = [int(word) for word in words if word.isdecimal()]
    if len(numbers) != len(words) or len(set(numbers)) != n_channels or len(numbers) != n_channels:
        raise UsageError(
            f"--channel-order: expected {n_channels} different numbers from 0, one per channel of the teachers, "
            f"got '{text}'; e.g. --channel-order {','.join(map(str, range(n_channels)))}"
        )
    return tuple(numbers)
