"""Names that are almost those of cases: passed over, they would cost cases in silence."""

import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_kd.errors import UsageError


def refuse_look_alikes(paths: Iterable[Path], *, nearly: str, exactly: str, example: str) -> None:
    """Refuse names that were meant to be those of cases.

    Args:
        paths: What lies where cases are looked for.
        nearly: Pattern of how such names begin, in whatever case.
        exactly: Pattern of the names that are read.
        example: A name that is read, for the message.

    Raises:
        UsageError: If a path's name fits the first pattern and not the second.

    Example:
        >>> refuse_look_alikes([Path("case_00001")], nearly="case", exactly=r"case_[0-9]{5}", example="case_00001")
    """
    for path in sorted(paths):
        if re.match(nearly, path.name, re.IGNORECASE) and not re.fullmatch(exactly, path.name):
            raise UsageError(
                f"expected cases named like {example} in {path.parent}, got {path.name!r}; rename it or move it away"
            )
