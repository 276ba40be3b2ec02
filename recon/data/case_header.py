"""What a case file says of itself: sizes, padding, attributes, without its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.hdf5 import dataset_of, opened
from nnunet_kd.recon.data.ismrmrd_header import read_facts

KSPACE, MASK, SENSITIVITIES, HEADER = "kspace", "mask", "sensitivities", "ismrmrd_header"
SINGLE_COIL_TARGET, MULTI_COIL_TARGET = "reconstruction_esc", "reconstruction_rss"
ENDING = ".h5"


@dataclass(frozen=True, kw_only=True)
class CaseHeader:
    """What is known of a case without reading its arrays.

    Attributes:
        name: Of the case; its file's name without the ending.
        n_slices: S.
        n_coils: C; 1 for a single coil.
        matrix: Of k-space, ``(H, W)``: readout, phase encoding.
        single_coil: Whether k-space has no axis of coils.
        patient: From the attribute ``patient_id``; the case's name without one.
        target_shape: ``(h, w)``, ``None`` without a target.
        padding: First acquired column, and the first behind the last one, of the centred grid; ``None`` if unknown.
        mask_shape: ``(W,)`` or ``(H, W)``; ``None`` where the volume was not sampled prospectively.
        has_sensitivities: Whether the file holds those of its coils.
        ismrmrd_header: The XML as it is; empty without one.
        attributes: The others: ``acquisition``, ``max``, ``acceleration``, ``affine``, ``source_format``, ...
    """

    name: str
    n_slices: int
    n_coils: int
    matrix: tuple[int, int]
    single_coil: bool
    patient: str
    target_shape: tuple[int, int] | None = None
    padding: tuple[int, int] | None = None
    mask_shape: tuple[int, ...] | None = None
    has_sensitivities: bool = False
    ismrmrd_header: bytes = field(default=b"", repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_mask(self) -> bool:
        """Whether the volume was sampled prospectively."""
        return self.mask_shape is not None

    @property
    def has_target(self) -> bool:
        """Whether the truth is known."""
        return self.target_shape is not None

    @property
    def source_format(self) -> str:
        """Where the case comes from: a name of ``nnunet_kd recon convert``, ``fastmri`` for fastMRI's own files."""
        return str(self.attributes.get("source_format", "fastmri"))

    @property
    def target_key(self) -> str:
        """The name of the target in the file."""
        return SINGLE_COIL_TARGET if self.single_coil else MULTI_COIL_TARGET


def read_header(path: Path) -> CaseHeader:
    """Read what a case is, without its arrays.

    Args:
        path: The file.

    Raises:
        UsageError: One line, naming file and key, if it is missing, truncated, or a key is missing or wrong.
    """
    with opened(path) as file:
        return header_of(file, path)


def header_of(file: Any, path: Path) -> CaseHeader:  # noqa: ANN401  # h5py's
    """Read what an open file is; see :func:`read_header`."""
    kspace = dataset_of(file, KSPACE, n_axes=(3, 4), kinds="c", path=path)
    single = kspace.ndim == 3
    attributes = {key: _plain(value) for key, value in file.attrs.items()}
    xml = _xml(file)
    matrix = (int(kspace.shape[-2]), int(kspace.shape[-1]))
    _check_attributes(attributes, matrix[1], path)
    return CaseHeader(
        name=path.name.removesuffix(ENDING),
        n_slices=int(kspace.shape[0]),
        n_coils=1 if single else int(kspace.shape[1]),
        matrix=matrix,
        single_coil=single,
        patient=str(attributes.get("patient_id") or path.name.removesuffix(ENDING)),
        target_shape=_target_shape(file, kspace.shape, path),
        padding=stored_padding(attributes) or _padding(xml, matrix[1], path),
        mask_shape=_mask_shape(file, matrix, path),
        has_sensitivities=_has_sensitivities(file, kspace.shape, path),
        ismrmrd_header=xml,
        attributes={key: value for key, value in attributes.items() if key != "patient_id"},
    )


def _check_attributes(attributes: Mapping[str, Any], width: int, path: Path) -> None:
    """Refuse patients without a name, and places of columns and of the image in space that are none."""
    if not isinstance(patient := attributes.get("patient_id", ""), str | int):
        raise UsageError(f"expected a text in the attribute 'patient_id' of {path}, got {patient!r:.80}")
    kinds: dict[str, tuple[int, str, Any]] = {
        "padding": (2, f"two columns 0 <= left < right <= {width}", lambda a: 0 <= a[0] < a[1] <= width),
        "affine": (16, "16 finite numbers", lambda _: True),
        "slice_axis": (1, "0, 1 or 2", lambda a: a[0] in (0, 1, 2)),
    }
    for key, (size, expected, fits) in kinds.items():
        if key not in attributes:
            continue
        numbers = np.asarray(attributes[key]).ravel()
        sound = numbers.size == size and numbers.dtype.kind in "iuf" and bool(np.isfinite(numbers).all())
        if not sound or not fits(numbers):
            raise UsageError(f"expected {expected} in the attribute '{key}' of {path}, got {attributes[key]!r:.80}")


def _plain(value: Any) -> Any:  # noqa: ANN401  # what HDF5 stores as an attribute
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def _xml(file: Any) -> bytes:  # noqa: ANN401  # h5py's
    if HEADER not in file:
        return b""
    value = file[HEADER][()]
    return value if isinstance(value, bytes) else bytes(str(value), "utf-8")


def _padding(xml: bytes, width: int, path: Path) -> tuple[int, int] | None:
    if not xml:
        return None
    try:
        facts = read_facts(xml)
    except ValueError as error:
        raise UsageError(f"expected an ISMRMRD header in key '{HEADER}' of {path}, but it {error}") from error
    left, right = facts.padding
    # a header of another grid than the file's says nothing about its columns
    return (left, right) if facts.encoded[1] == width and 0 <= left < right <= width else None


def stored_padding(attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the padding that an attribute names, for files without ISMRMRD header."""
    stored = attributes.get("padding")
    return None if stored is None else (int(stored[0]), int(stored[1]))


def _target_shape(file: Any, kspace: tuple[int, ...], path: Path) -> tuple[int, int] | None:  # noqa: ANN401
    key = SINGLE_COIL_TARGET if len(kspace) == 3 else MULTI_COIL_TARGET
    if key not in file:
        return None
    target = dataset_of(file, key, n_axes=(3,), kinds="f", path=path)
    if target.shape[0] != kspace[0] or target.shape[1] > kspace[-2] or target.shape[2] > kspace[-1]:
        expected = (kspace[0], *kspace[-2:])
        raise UsageError(f"expected at most {expected} in key '{key}' of {path}, as '{KSPACE}', got {target.shape}")
    return int(target.shape[1]), int(target.shape[2])


def _mask_shape(file: Any, matrix: tuple[int, int], path: Path) -> tuple[int, ...] | None:  # noqa: ANN401
    if MASK not in file:
        return None
    mask = dataset_of(file, MASK, n_axes=(1, 2), kinds="fiub", path=path)
    if mask.shape not in ((matrix[1],), matrix, (1, matrix[1])):
        raise UsageError(f"expected {(matrix[1],)} or {matrix} in key '{MASK}' of {path}, got {mask.shape}")
    return tuple(int(n) for n in mask.shape)


def _has_sensitivities(file: Any, kspace: tuple[int, ...], path: Path) -> bool:  # noqa: ANN401
    if SENSITIVITIES not in file:
        return False
    found = dataset_of(file, SENSITIVITIES, n_axes=(4,), kinds="c", path=path)
    if found.shape != kspace:
        raise UsageError(f"expected {kspace} in key '{SENSITIVITIES}' of {path}, as '{KSPACE}', got {found.shape}")
    return True
