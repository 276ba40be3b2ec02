"""The ISMRMRD header in fastMRI's files: matrix sizes, and which columns were never acquired."""

from dataclasses import dataclass

_NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"


@dataclass(frozen=True)
class HeaderFacts:
    """What the header says of the first encoding.

    Attributes:
        encoded: Matrix of k-space ``(x, y, z)``: readout, phase encoding, partitions.
        recon: Matrix of the image ``(x, y, z)``.
        centre: Number of the line through the centre of k-space.
        maximum: Number of the last line; lines count from 0.
    """

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    centre: int
    maximum: int

    @property
    def padding(self) -> tuple[int, int]:
        """First acquired column, and the first that was not acquired after it, on the centred grid.

        As fastMRI computes them (``fastmri/data/mri_data.py``).

        Example:
            >>> HeaderFacts((640, 368, 1), (320, 320, 1), 162, 325).padding
            (22, 348)
        """
        left = self.encoded[1] // 2 - self.centre
        return left, left + self.maximum + 1


def read_facts(xml: bytes) -> HeaderFacts:
    """Read an ISMRMRD header.

    Args:
        xml: The text of the header.

    Raises:
        ValueError: If it is no such header; says what is missing.
    """
    from xml.etree import ElementTree  # documents with entities are refused below

    if b"<!" in xml.replace(b"<!--", b""):
        raise ValueError("declares a document type")
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314
    except ElementTree.ParseError as error:
        raise ValueError(f"is no XML ({error})") from error

    def number(*names: str) -> int:
        found = root.find("./" + "/".join(_NAMESPACE + name for name in ("encoding", *names)))
        if found is None or not (found.text or "").strip().isdecimal():
            raise ValueError(f"has no number encoding/{'/'.join(names)}")
        return int(found.text or "")

    def matrix(space: str) -> tuple[int, int, int]:
        x, y, z = (number(space, "matrixSize", axis) for axis in "xyz")
        return x, y, z

    limits = ("encodingLimits", "kspace_encoding_step_1")
    return HeaderFacts(
        matrix("encodedSpace"), matrix("reconSpace"), number(*limits, "center"), number(*limits, "maximum")
    )
