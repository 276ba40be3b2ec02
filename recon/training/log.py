"""What a training says: lines in ``training_log_*.txt``, numbers per epoch, and ``debug.json``."""

import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunet_kd.distillation.checkpoints import to_plain
from nnunet_kd.errors import UsageError

LOSS, RATE, START, END = "train_loss", "lr", "epoch_start", "epoch_end"
PART = "part_"  # parts of the loss, unweighted
SCORE = "val_"  # mean over validation volumes


class LogFile:
    """A text file of lines with their time, which are printed too.

    Args:
        folder: Where ``training_log_<time>.txt`` is made.
        silent: Neither write nor print; of all ranks but the first.
    """

    def __init__(self, folder: Path, *, silent: bool = False) -> None:
        self._silent = silent
        self.path = folder / f"training_log_{datetime.now().astimezone():%Y_%m_%d_%H_%M_%S}.txt"

    def __call__(self, text: str) -> None:
        """Write one message."""
        if self._silent:
            return
        line = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}: {text}"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stdout, flush=True)  # noqa: T201


class EpochLog:
    """Numbers of the epochs that ended, one list per name, all of the same length.

    Args:
        values: Lists by name, as :attr:`values` returned them.
    """

    def __init__(self, values: Mapping[str, Sequence[float]] | None = None) -> None:
        self.values: dict[str, list[float]] = {name: [float(v) for v in row] for name, row in (values or {}).items()}
        if len({len(row) for row in self.values.values()}) > 1:
            raise UsageError("the checkpoint's log has rows of unequal length; train again without --c")

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(next(iter(self.values.values()), []))

    def add(self, epoch: Mapping[str, float]) -> None:
        """Append an epoch's numbers; a name that is new or missing has NaN where it has no number."""
        n_before = len(self)
        for name in epoch:
            self.values.setdefault(name, [math.nan] * n_before)
        for name, row in self.values.items():
            row.append(float(epoch.get(name, math.nan)))

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        plain: dict[str, Any] = to_plain(self.values)
        return plain

    def durations(self) -> list[float]:
        """Return the seconds of each epoch."""
        return [end - start for start, end in zip(self.values[START], self.values[END], strict=True)]
