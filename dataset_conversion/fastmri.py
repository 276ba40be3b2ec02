"""fastMRI: reconstructions of accelerated knee and brain scans, one HDF5 file of slices per volume."""

from pathlib import Path

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission
from nnunet_kd.errors import UsageError

_SOURCE = "a folder with singlecoil_test, multicoil_test, ... of fastMRI's HDF5 files"


def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Refuse: k-space is no nnU-Net data set of images and labels.

    Raises:
        UsageError: Always; names the verb that converts it.
    """
    raise UsageError(
        f"expected a challenge of images and labels, {source} is of k-space; type: "
        "nnunet_kd recon convert fastmri -i SOURCE -d ID -n NAME"
    )


def _file_name(case: str) -> str:
    return f"{case}.h5"


CHALLENGES = {
    "fastmri": Challenge(
        summary="fastMRI's reconstructions, to be sent in; its k-space is converted by nnunet_kd recon convert",
        source=_SOURCE,
        read_source=read_source,
        submission=Submission(
            file_name=_file_name,
            label_values={},
            image_size=(320, 320),
            note="fastMRI's own page says that its leaderboards are down since 2023; ask the organisers before sending",
        ),
    )
}
