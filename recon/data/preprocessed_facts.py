"""What stands beside the arrays of a preprocessed case, in ``CASE.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_number, read_block
from nnunet_kd.planning.model_folder import read_json_object

_PAIRS = {"matrix": 1, "target_shape": 1, "padding": 0}  # the smallest number of each
_TEXTS = ("name", "patient", "sensitivities", "source_format")


@dataclass(frozen=True, kw_only=True)
class PreprocessedFacts:
    """What a preprocessed case is.

    Attributes:
        name: Of the case; seeds its mask.
        patient: Whose it is; splits keep patients together.
        n_slices: Slices.
        n_coils: Coils.
        matrix: Of k-space, ``(H, W)``.
        target_shape: ``(h, w)``.
        padding: First acquired column and the one after the last; ``None``: all were acquired.
        mask: What was sampled, rows of 0 and 1, ``(H or 1, W or 1)``; ``None`` where everything was.
        sensitivities: Where those of the coils come from; ``None`` for a single coil.
        volume_scale: The case's scale where plans want one per volume.
        source_format: The format it was converted from.
    """

    name: str
    patient: str
    n_slices: int
    n_coils: int
    matrix: tuple[int, int]
    target_shape: tuple[int, int]
    padding: tuple[int, int] | None = None
    mask: tuple[tuple[int, ...], ...] | None = None
    sensitivities: str | None = None
    volume_scale: float | None = None
    source_format: str | None = None

    @property
    def own_mask(self) -> NDArray[np.float32] | None:
        """The mask as an array."""
        return None if self.mask is None else np.array(self.mask, dtype=np.float32)

    @property
    def size(self) -> tuple[int, ...]:
        """What must agree within a batch: coils, matrix and target."""
        return (self.n_coils, *self.matrix, *self.target_shape)


def preprocess_again(path: Path) -> str:
    """Say what to type where a file or folder in ``nnUNet_preprocessed/DatasetXXX_Name`` is missing or damaged."""
    return f"nnunet_kd recon preprocess -d {path.parent.name}"


def read_preprocessed_facts(path: Path) -> PreprocessedFacts:
    """Read ``CASE.json``.

    Raises:
        UsageError: If it is missing, damaged or of another program; says what to type.
    """
    try:
        return _parse(read_json_object(path), str(path))
    except UsageError as error:
        raise UsageError(f"{error}; type: {preprocess_again(path.parent)} --overwrite") from None


def _parse(data: Mapping[str, Any], where: str) -> PreprocessedFacts:
    for key in ("n_slices", "n_coils"):
        check_number(data.get(key), f"{where}, {key}", at_least=1, whole=True)
    if data.get("volume_scale") is not None:
        check_number(data["volume_scale"], f"{where}, volume_scale", above=0)
    for key in _TEXTS:
        if not isinstance(data.get(key, ""), str | None):
            raise UsageError(f"{where}, {key}: expected text, got {data[key]!r:.80}")
    pairs = {
        key: _pair(data[key], f"{where}, {key}", least) for key, least in _PAIRS.items() if data.get(key) is not None
    }
    if data.get("mask") is not None:
        pairs["mask"] = _mask(data["mask"], pairs.get("matrix", (0, 0)), f"{where}, mask")
    return read_block(PreprocessedFacts, data, where, **pairs)


def _pair(value: Any, where: str, least: int) -> tuple[Any, ...]:  # noqa: ANN401  # any JSON value
    if not isinstance(value, list) or len(value) != 2:
        raise UsageError(f"{where}: expected two whole numbers, got {value!r:.80}")
    for number in value:
        check_number(number, where, at_least=least, whole=True)
    return tuple(value)


def _mask(rows: Any, matrix: tuple[int, ...], where: str) -> tuple[tuple[int, ...], ...]:  # noqa: ANN401  # any JSON value
    sound = isinstance(rows, list) and all(isinstance(row, list) and {*map(repr, row)} <= {"0", "1"} for row in rows)
    sides = {len(row) for row in rows} if sound else set()
    fits = sound and len(rows) in (1, matrix[0]) and len(sides) == 1 and sides <= {1, matrix[1]}
    if not fits or not any(map(any, rows)):
        raise UsageError(f"{where}: expected rows of 0 and 1 of the matrix {matrix}, not all 0, got {rows!r:.80}")
    return tuple(map(tuple, rows))
