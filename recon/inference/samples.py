"""Several reconstructions of one measurement, by generative networks: what is asked for, and its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import read_header
from nnunet_kd.recon.inference.outputs import write_reconstruction
from nnunet_kd.recon.inference.predictor import Predictor, reconstruct_samples
from nnunet_kd.recon.networks.generative import GenerativeNetwork

if TYPE_CHECKING:
    from torch import nn

    from nnunet_kd.recon.inference.run import Job

SPREAD = "spread"


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What was asked for.

    Attributes:
        n_samples: Samples to write, each in a folder of its own; ``None``: only the mean of a few.
        seed: Of the first; the next ones count on from it.
    """

    n_samples: int | None = None
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Return the settings of a predictor."""
        return {"seed": self.seed, **({} if self.n_samples is None else {"n_samples": self.n_samples})}


def check_samples(request: SampleRequest | None, networks: Sequence["nn.Module"]) -> None:
    """Refuse samples of networks that give one image, or of several networks at once.

    Raises:
        UsageError: Says what to leave out or to type.
    """
    if request is None:
        return
    if not networks or not all(isinstance(network, GenerativeNetwork) for network in networks):
        raise UsageError(
            "--samples and --seed: expected a generative network, this one gives one image; leave them out"
        )
    if request.n_samples is not None and len(networks) > 1:
        raise UsageError(f"--samples: expected one fold, got {len(networks)}, whose mean is no sample; type -f 0")


def sample_folder(output: Path, seed: int) -> Path:
    """Return the folder of a seed's samples."""
    return output / f"seed_{seed}"


def write_samples(predictor: Predictor, job: "Job", progress: Callable[[int], object] = int) -> None:
    """Write a case's samples, their standard deviation in each pixel, and their mean, which comes last.

    Args:
        predictor: Of one generative network.
        job: The case; ``target`` is the mean. ``seed_S`` and ``spread`` lie beside it. One sample has no spread.
        progress: Called with the number of slices that were finished.

    Raises:
        UsageError: As :func:`nnunet_kd.recon.inference.predictor.reconstruct`.
    """
    header, output, name = read_header(job.source), job.target.parent, job.target.name
    volumes = reconstruct_samples(predictor, job.source, progress)
    for seed, volume in zip(predictor.seeds, volumes, strict=True):
        _write(sample_folder(output, seed) / name, volume, header)
    if len(volumes) > 1:
        _write(output / SPREAD / name, volumes.std(axis=0, ddof=1, dtype=np.float64), header)
    _write(job.target, volumes.mean(axis=0, dtype=np.float64), header)


def _write(file: Path, volume: Any, header: Any) -> None:  # noqa: ANN401  # an array of any precision
    file.parent.mkdir(parents=True, exist_ok=True)
    write_reconstruction(file, np.ascontiguousarray(volume, dtype=np.float32), header)
