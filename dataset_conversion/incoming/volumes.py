"""Volumes as files: read whole or not at all, written with their geometry kept to the last bit."""

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any

GZIP_LEVEL = 2  # at most a sixth of level 6's time for 6 to 16 % more disk on two scans; training never reads these
_NIFTI = (".nii.gz", ".nii")
WRITABLE = (*_NIFTI, ".nrrd", ".mha")
READABLE = (*WRITABLE, ".mhd")
_HEADER_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Image:
    """A volume, or several along a fourth axis.

    Attributes:
        stored: Numbers as they are in the file, ``(x, y, z)`` or ``(x, y, z, t)``.
        affine: Voxel to world, right-anterior-superior [mm].
        header: nibabel's header of a NIfTI file, ``None`` for other files.
        extension: What stands between a NIfTI file's header and its voxels.
        sha256: Of the file, and of the one with its voxels where these lie apart.
    """

    stored: Any
    affine: Any
    header: Any = None
    extension: bytes = bytes(4)
    sha256: tuple[str, ...] = ()

    @property
    def scale(self) -> tuple[float, float]:
        """Slope and intercept from stored numbers to values."""
        slope, intercept = self.header.get_slope_inter() if self.header is not None else (None, None)
        return (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))

    def values(self) -> Any:  # noqa: ANN401  # an array; numpy loads lazily
        """Return the values, scaled as the header says."""
        slope, intercept = self.scale
        return self.stored if (slope, intercept) == (1.0, 0.0) else self.stored * slope + intercept


def ending_of(path: Path) -> str:
    """Return a file's ending, one of those that can be read.

    Raises:
        ValueError: If it has another.

    Example:
        >>> ending_of(Path("case.nii.gz"))
        '.nii.gz'
    """
    for ending in READABLE:
        if path.name.lower().endswith(ending):
            return ending
    raise ValueError(f"expected a file that ends in {', '.join(READABLE)}")


def parts(path: Path) -> tuple[Path, ...]:
    """Return the files that make up a volume: itself, and for ``.mhd`` the one with its voxels.

    Raises:
        ValueError: If its voxels lie in another folder or in several files.
    """
    if not path.name.lower().endswith(".mhd"):
        return (path,)
    lines = path.read_bytes()[:_BLOCK].decode("latin-1").splitlines()
    named = [line.partition("=")[2].strip() for line in lines if line.startswith("ElementDataFile")]
    if len(named) != 1 or Path(named[0]).name != named[0] or named[0] in ("", "LIST", "LOCAL"):
        raise ValueError("expected ElementDataFile to name one file beside it")
    return (path, path.with_name(named[0]))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_image(path: Path) -> Image:
    """Read a file once, to its end, where a checksum is.

    Raises:
        ValueError: If it is no such file, holds other things than one number per voxel, or gives voxels no place.
        Exception: Whatever the readers raise for a damaged file.
    """
    if not path.is_file():
        raise FileNotFoundError("is missing")
    image = _read_nifti(path) if ending_of(path) in _NIFTI else _read_itk(path)
    import numpy as np

    if not image.stored.size:
        raise ValueError(f"holds no voxels, its shape is {image.stored.shape}")
    if image.stored.dtype.kind not in "iuf":
        raise ValueError(f"expected one number per voxel, got {image.stored.dtype}")
    if not (np.isfinite(image.affine).all() and np.linalg.det(image.affine[:3, :3])):
        raise ValueError("its header gives the voxels no size or no place")
    return image


def _nibabel() -> Any:  # noqa: ANN401  # typed in parts only
    import nibabel  # only where files are read, so that --help stays fast

    return nibabel


def _simpleitk() -> Any:  # noqa: ANN401  # claims to be typed and is not
    import SimpleITK

    return SimpleITK


def _read_nifti(path: Path) -> Image:
    import numpy as np

    with gzip.open(path) if ending_of(path) == ".nii.gz" else path.open("rb") as stream:
        try:
            start = stream.read(max(_HEADER_BYTES))
            header = _header(start)
            shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
            n_voxels = prod(map(int, shape))  # of a header that may claim more than 64 bits hold
            expected = offset + n_voxels * dtype.itemsize
            content = _read_to(stream, start, expected)
        except zlib.error as error:
            raise ValueError(f"damaged: {error}") from error
    n_header = header.sizeof_hdr
    if offset < n_header or len(content) < expected:
        raise ValueError(f"truncated: expected {expected} bytes, got {len(content)}")
    stored = np.frombuffer(content, dtype, count=n_voxels, offset=offset).reshape(shape, order="F")
    affine = header.get_best_affine()
    extension = bytes(content[n_header:offset])
    return Image(stored=stored, affine=affine, header=header, extension=extension, sha256=(sha256(path),))


def _header(start: bytes) -> Any:  # noqa: ANN401  # nibabel's header
    sizes = {order: struct.unpack_from(f"{order}i", start.ljust(4, b" "))[0] for order in "<>"}
    order = next((order for order, size in sizes.items() if size in _HEADER_BYTES), None)
    if order is None or len(start) < sizes[order]:
        raise ValueError("expected a NIfTI header, got something else")
    n_bytes = sizes[order]
    header = getattr(_nibabel(), _HEADER_BYTES[n_bytes])(start[:n_bytes], endianness=order, check=False)
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("expected header and voxels in one file")
    return header


def _read_to(stream: IO[bytes] | gzip.GzipFile, start: bytes, n_bytes: int) -> bytearray:
    """Read on to the end of a file, where gzip has its checksum; one that is longer than its header says is refused."""
    content = bytearray(start)
    while block := stream.read(_BLOCK):  # piece by piece: a file may unpack to any size, and a header claim any
        content += block
        if len(content) > n_bytes + _BLOCK:
            raise ValueError(f"expected {n_bytes} bytes, as its header says, got more")
    return content


def _read_itk(path: Path) -> Image:
    import numpy as np

    sitk = _simpleitk()

    files = parts(path)
    if not files[-1].is_file():
        raise FileNotFoundError(f"{files[-1].name} beside it is missing")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:  # several lines, of which the last says what is wrong
        raise ValueError(str(error).strip().rpartition("\n")[2].strip()) from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(f"expected one number per voxel, got {image.GetNumberOfComponentsPerPixel()}")
    stored = sitk.GetArrayFromImage(image).T
    n = image.GetDimension()
    affine = np.eye(4)
    if n >= 3:
        direction = np.reshape(image.GetDirection(), (n, n))[:3, :3]
        affine[:3, :3] = direction * np.array(image.GetSpacing()[:3])
        affine[:3, 3] = image.GetOrigin()[:3]
        affine[:2] *= -1  # ITK's world is left-posterior-superior
    return Image(stored=stored, affine=affine, sha256=tuple(map(sha256, files)))


def channel(image: Image, index: int) -> Image:
    """Return one volume along the fourth axis; everything else of its header stays.

    Args:
        image: Of four axes.
        index: From 0.
    """
    header = None
    if image.header is not None:
        header = image.header.copy()
        header["dim"][0], header["dim"][4:] = 3, 1
    return replace(image, stored=image.stored[..., index], header=header)


def as_labels(image: Image, mapping: Mapping[int, int]) -> Image:
    """Return a label map with its values mapped, as uint8.

    Args:
        image: Its values are keys of ``mapping``.
        mapping: From a value in the file to ours, 0 to 255.
    """
    import numpy as np

    values = image.values()
    labels = np.zeros(values.shape, np.uint8, order="F")
    for theirs, ours in mapping.items():
        if ours:
            labels[values == theirs] = ours
    header = None
    if image.header is not None:
        header = image.header.copy()
        header.set_data_dtype(np.uint8)
        header["scl_slope"], header["scl_inter"] = 1, 0
    return replace(image, stored=labels, header=header)


def reoriented(image: Image, orientation: str) -> Image:
    """Return a volume with its axes swapped and turned towards three directions; no voxel is interpolated.

    Args:
        image: Of three axes.
        orientation: Where each axis points, as ``RAS``.
    """
    orientations = _nibabel().orientations
    wanted = orientations.axcodes2ornt(tuple(orientation))
    turn = orientations.ornt_transform(orientations.io_orientation(image.affine), wanted)
    step = orientations.inv_ornt_aff(turn, image.stored.shape)
    stored = orientations.apply_orientation(image.stored, turn)
    affine = image.affine @ step
    if image.header is None:
        return replace(image, stored=stored, affine=affine)
    header = image.header.copy()
    header.set_data_shape(stored.shape)
    (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
    place = turn[:, 0].astype(int)
    edges = header["pixdim"][1:4].copy()
    if q_code:
        header.set_qform(qform @ step, int(q_code), strip_shears=True)
    if s_code or not q_code:
        header.set_sform(sform @ step if s_code else affine, int(s_code) or 1)
    header["pixdim"][1 + place] = edges
    header.set_dim_info(*(None if axis is None else int(place[axis]) for axis in header.get_dim_info()))
    return replace(image, stored=stored, affine=affine, header=header)


def write_image(image: Image, path: Path) -> None:
    """Write a volume; the ending says as what. gzip's level is :data:`GZIP_LEVEL`.

    Args:
        image: Of three axes.
        path: With an ending in :data:`WRITABLE`.
    """
    ending = ending_of(path)
    if ending not in _NIFTI:
        _write_itk(image, path)
        return
    header = image.header if image.header is not None else _new_header(image)
    stored = image.stored.astype(header.get_data_dtype(), copy=False)
    content = header.binaryblock + image.extension + stored.tobytes(order="F")
    # no time in it: the same volume gives the same bytes
    path.write_bytes(gzip.compress(content, GZIP_LEVEL, mtime=0) if ending == ".nii.gz" else content)


def _new_header(image: Image) -> Any:  # noqa: ANN401  # nibabel's header
    header = _nibabel().Nifti1Header()
    header.set_data_dtype(image.stored.dtype)
    header.set_data_shape(image.stored.shape)
    header.set_qform(image.affine, 1, strip_shears=True)
    header.set_sform(image.affine, 1)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header


def _write_itk(image: Image, path: Path) -> None:
    import numpy as np

    sitk = _simpleitk()

    values = image.values()
    native = np.ascontiguousarray(values.T, values.dtype.newbyteorder("="))
    written = sitk.GetImageFromArray(native)
    affine = image.affine.copy()
    affine[:2] *= -1
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    written.SetSpacing(spacing.tolist())
    written.SetOrigin(affine[:3, 3].tolist())
    written.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    # the writer tells the format by the last ending
    sitk.WriteImage(written, os.fspath(path), useCompression=True, compressionLevel=GZIP_LEVEL)
