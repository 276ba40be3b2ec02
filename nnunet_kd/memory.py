"""Amounts of memory as people type them."""

import re

from nnunet_kd.errors import UsageError

_UNITS = {"K": 1e-3, "M": 1.0, "G": 1e3, "T": 1e6}


def read_megabytes(text: str, flag: str) -> float:
    """Read ``2G`` or ``500M`` as megabytes, 10^6 bytes.

    Args:
        text: A number above 0 and one of K, M, G, T, each 1000 of the one before; a ``B`` may follow.
        flag: The option it was typed for.

    Raises:
        UsageError: If it has another form.

    Example:
        >>> read_megabytes("1.5G", "--max-memory")
        1500.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])B?", text.strip(), flags=re.IGNORECASE)
    megabytes = float(match[1]) * _UNITS[match[2].upper()] if match else 0.0
    if megabytes <= 0:
        raise UsageError(f"{flag}: expected an amount above 0 with its unit, got '{text}'; type e.g. {flag} 2G")
    return megabytes
