"""Preprocessed cases: blosc2 arrays of which single slices are read."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.measuring import SliceData
from nnunet_kd.recon.data.preprocessed_facts import preprocess_again, read_preprocessed_facts


def neighbour_indices(index: int, n_slices: int, n_neighbours: int) -> list[int]:
    """Return the slices that one sees; beyond the ends the last slice repeats.

    Example:
        >>> neighbour_indices(0, 10, 1), neighbour_indices(9, 10, 1)
        ([0, 0, 1], [8, 9, 9])
    """
    return [min(max(i, 0), n_slices - 1) for i in range(index - n_neighbours, index + n_neighbours + 1)]


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
            raise UsageError(f"no preprocessed cases in {folder}; type: {preprocess_again(folder)}")
        missing = [name for name in names or () if name not in found]
        if missing:
            others = f"found {len(found)} others; type: {preprocess_again(folder)} --overwrite"
            raise UsageError(f"expected case '{missing[0]}' in {folder}, {others}")
        taken = found if names is None else names
        self.facts = {name: read_preprocessed_facts(folder / f"{name}.json") for name in taken}
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

        Raises:
            UsageError: If an array is missing, damaged or of another case.
        """
        facts = self.facts[name]
        indices = neighbour_indices(index, facts.n_slices, n_neighbours)
        coils = (facts.n_slices, facts.n_coils, *facts.matrix)
        maps = None if facts.sensitivities is None else self._slices(f"{name}_sensitivities.b2nd", indices, coils)
        return SliceData(
            kspace=self._slices(f"{name}.b2nd", indices, coils),
            name=name,
            sensitivities=maps,
            target=self._slices(f"{name}_target.b2nd", [index], (facts.n_slices, *facts.target_shape))[0],
            mask=facts.own_mask,
            padding=facts.padding,
        )

    def _slices(self, file_name: str, indices: Sequence[int], shape: tuple[int, ...]) -> NDArray[Any]:
        path = self.folder / file_name
        try:
            array = self._array(path)
            if array.shape != shape:
                raise ValueError(f"expected {shape} as in the .json beside it, got {array.shape}")
            return np.stack([array[index] for index in indices])
        except (OSError, RuntimeError, ValueError) as error:
            reason, again = " ".join(str(error).split()), preprocess_again(self.folder)
            raise UsageError(f"cannot read {path}: {reason:.200}; type: {again} --overwrite") from None

    def _array(self, path: Path) -> Any:  # noqa: ANN401  # blosc2 has no type hints
        if path not in self._arrays:
            import blosc2

            mapped = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: Windows cannot map these files
            self._arrays[path] = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **mapped)
        return self._arrays[path]
