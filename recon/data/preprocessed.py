"""Preprocessed cases: blosc2 arrays of which single slices are read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_keys, read_block
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.recon.data.measuring import SliceData


def neighbour_indices(index: int, n_slices: int, n_neighbours: int) -> list[int]:
    """Return the slices that one sees; beyond the ends the last slice repeats.

    Example:
        >>> neighbour_indices(0, 10, 1), neighbour_indices(9, 10, 1)
        ([0, 0, 1], [8, 9, 9])
    """
    return [min(max(i, 0), n_slices - 1) for i in range(index - n_neighbours, index + n_neighbours + 1)]


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """What stands in ``CASE.json`` beside the arrays.

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


def read_facts(path: Path) -> CaseFacts:
    """Read ``CASE.json``.

    Raises:
        UsageError: If it is missing, damaged or of another program.
    """
    data = read_json_object(path)
    check_keys(data, CaseFacts.__dataclass_fields__, str(path))
    pairs = {key: tuple(data[key]) for key in ("matrix", "target_shape", "padding") if data.get(key) is not None}
    mask = data.get("mask")
    return read_block(
        CaseFacts,
        data,
        str(path),
        **pairs,
        mask=None if mask is None else tuple(tuple(row) for row in mask),
    )


def _again(folder: Path) -> str:
    return f"nnunet_kd recon preprocess -d {folder.parent.name}"


class PreprocessedCases:
    """The cases of a preprocessed folder; a list of slices, read one at a time.

    Args:
        folder: ``nnUNet_preprocessed/DatasetXXX_Name/<data_identifier>``.
        names: Cases to take; ``None`` takes all.

    Attributes:
        facts: Of each case, by name, in order.
        items: ``(case, slice)`` of every slice; none is empty, since preprocessing refuses those.

    Raises:
        UsageError: If the folder or a case is missing.
    """

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        self.folder = folder
        found = sorted(path.stem for path in folder.glob("*.json"))
        if not found:
            raise UsageError(f"no preprocessed cases in {folder}; type: {_again(folder)}")
        missing = [name for name in names or () if name not in found]
        if missing:
            others = f"found {len(found)} others; type: {_again(folder)} --overwrite"
            raise UsageError(f"expected case '{missing[0]}' in {folder}, {others}")
        self.facts = {name: read_facts(folder / f"{name}.json") for name in (found if names is None else names)}
        self.items = [(name, index) for name, facts in self.facts.items() for index in range(facts.n_slices)]
        self._arrays: dict[Path, Any] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}  # open files do not travel to loader processes

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Of every slice, for :func:`nnunet_kd.recon.data.samples.same_size_batches`."""
        return [self.facts[name].size for name, _ in self.items]

    def read(self, name: str, index: int, n_neighbours: int = 0) -> SliceData:
        """Read one slice and its neighbours.

        Args:
            name: Case.
            index: Slice.
            n_neighbours: On each side.
        """
        facts = self.facts[name]
        indices = neighbour_indices(index, facts.n_slices, n_neighbours)
        maps = None if facts.sensitivities is None else self._slices(f"{name}_sensitivities.b2nd", indices)
        return SliceData(
            kspace=self._slices(f"{name}.b2nd", indices),
            name=name,
            sensitivities=maps,
            target=self._slices(f"{name}_target.b2nd", [index])[0],
            mask=facts.own_mask,
            padding=facts.padding,
        )

    def _slices(self, file_name: str, indices: Sequence[int]) -> NDArray[Any]:
        array = self._array(self.folder / file_name)
        return np.stack([array[index] for index in indices])

    def _array(self, path: Path) -> Any:  # noqa: ANN401  # blosc2 has no type hints
        if path not in self._arrays:
            import blosc2

            mapped = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: Windows cannot map these files
            try:
                self._arrays[path] = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **mapped)
            except (OSError, RuntimeError, ValueError) as error:
                reason, again = " ".join(str(error).split()), _again(self.folder)
                raise UsageError(f"cannot read {path}: {reason:.200}; type: {again} --overwrite") from None
        return self._arrays[path]
