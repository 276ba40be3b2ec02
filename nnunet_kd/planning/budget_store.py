"""Measurements that are kept beside the plans, so that the same search comes to the same student again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.budget_search import Measurement
from nnunet_kd.planning.json_blocks import read_block, write_block
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically

FILE = "nnunet_kd_measurements.json"
FORMAT = 1


class Measurements:
    """What was measured on a data set, in a file; every new measurement is written at once.

    Args:
        folder: The data set's in ``nnUNet_preprocessed``.
        fresh: Whether what is stored already is measured again.

    Raises:
        UsageError: If the file there is damaged or from a newer version.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.path = folder / FILE
        self._known = {} if fresh else self._read()
        self.n_new = 0

    def get(self, facts: Mapping[str, Any], name: str, measure: Callable[[], Measurement]) -> Measurement:
        """Return a stored measurement, or measure and store it.

        Args:
            facts: Everything that the measurement depends on; JSON values.
            name: For readers of the file.
            measure: Called if nothing is stored under these facts.
        """
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        if key not in self._known:
            self._known[key] = measure()
            self.n_new += 1
            self._write(key, name, facts)
        return self._known[key]

    def _entries(self) -> dict[str, Any]:
        if not self.path.exists():
            return {}
        content = read_json_object(self.path)
        entries = content.get("measurements")
        if content.get("format") != FORMAT or not isinstance(entries, dict):
            raise UsageError(
                f"{self.path}: expected format {FORMAT} with measurements, got format {content.get('format')!r:.40}; "
                "delete the file to measure anew"
            )
        return entries

    def _read(self) -> dict[str, Measurement]:
        try:
            return {key: read_block(Measurement, entry["found"], key) for key, entry in self._entries().items()}
        except (KeyError, TypeError, UsageError) as error:
            if str(error).startswith(str(self.path)):
                raise
            raise UsageError(f"{self.path} is damaged ({error!s:.120}); delete the file to measure anew") from error

    def _write(self, key: str, name: str, facts: Mapping[str, Any]) -> None:
        # read again: another search may have added to it
        described = {"student": name, **{what: facts[what] for what in ("case", "machine") if what in facts}}
        entries = {**self._entries(), key: {**described, "found": write_block(self._known[key])}}
        write_json_atomically({"format": FORMAT, "measurements": entries}, self.path)
