"""All measures of one volume under one arm: of its samples, and of their mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.data.cases import Volume as CaseVolume
from nnunet_kd.recon.evaluation.invention.detail import detail_agreement, detail_share, sample_mean
from nnunet_kd.recon.evaluation.invention.residual import measured_residual, true_image, with_true_phase
from nnunet_kd.recon.evaluation.invention.scan import ScanSettings, scan
from nnunet_kd.recon.evaluation.invention.spectrum import fine_detail_excess, power_error, spectral_distance
from nnunet_kd.recon.evaluation.invention.spread import Moments, moments
from nnunet_kd.recon.evaluation.metrics import Volume, score_volume
from nnunet_kd.recon.physics.sampling import true_acceleration

SAMPLE, MEAN = "sample", "mean of samples"


class Measured(NamedTuple):
    """What was measured of a volume.

    Attributes:
        case: With k-space.
        mask: ``(H or 1, W or 1)``.
        truth: The complex image of the fully sampled k-space, ``(S, H, W)``.
    """

    case: CaseVolume
    mask: NDArray[np.float32]
    truth: NDArray[np.complex64]


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Numbers of one volume.

    Attributes:
        scores: ``sample`` (the mean over samples) and, of several, ``mean of samples``: measure to number.
        spectra: The same: error of the radial power spectrum in dB, ``(rings,)``.
        moments: Of spread and error; ``None`` for a single sample.
        marked: Share of marked pixels in each slice of the first sample.
        facts: True acceleration of the mask and the residual of the truth itself, where they are known.
    """

    scores: dict[str, dict[str, float]]
    spectra: dict[str, NDArray[np.float64]]
    moments: Moments | None
    marked: NDArray[np.float64]
    facts: dict[str, float] = field(default_factory=dict)


def measured_of(case: CaseVolume, mask: NDArray[np.float32]) -> Measured:
    """Gather what residuals need."""
    return Measured(case=case, mask=mask, truth=true_image(case))


def residual_of(magnitude: Volume, measured: Measured) -> float:
    """Return the residual of magnitudes on the sampled points, with the true phase."""
    return measured_residual(with_true_phase(magnitude, measured.truth), measured.case, measured.mask)


def measure_volume(
    target: Volume,
    samples: Sequence[Volume],
    *,
    base: Volume | None,
    measured: Measured | None,
    metrics: tuple[str, ...],
    settings: ScanSettings,
) -> CaseResult:
    """Measure one volume.

    Args:
        target: The truth, ``(S, H, W)``.
        samples: At least one, same shape and scale.
        base: What detail was added to; ``None`` takes the samples' mean, if there are several.
        measured: For the residual; ``None`` leaves it out.
        metrics: Of :data:`nnunet_kd.recon.evaluation.metrics.METRICS`.
        settings: Of the scan.
    """
    several = len(samples) > 1
    volumes = {SAMPLE: list(samples), **({MEAN: [sample_mean(samples)]} if several else {})}
    scores: dict[str, dict[str, float]] = {}
    spectra = {}
    marks: list[NDArray[np.float64]] = []
    for kind, images in volumes.items():
        reference = base if base is not None or kind == MEAN or not several else sample_mean(samples)
        rows, errors = [], []
        for image in images:
            found = scan(target, image, settings)
            marks.append(found.marked.mean(axis=(1, 2)))
            error = power_error(target, image)
            errors.append(error)
            row = _image_scores(target, image, reference, metrics)
            row |= _spectrum_scores(error) | {"marked": float(found.marked.mean())}
            if measured is not None:
                row["residual"] = residual_of(image, measured)
            rows.append(row)
        scores[kind] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        spectra[kind] = np.mean(errors, axis=0)
    return CaseResult(
        scores=scores,
        spectra=spectra,
        moments=moments(target, samples) if several else None,
        marked=marks[0],
        facts={} if measured is None else _facts(target, measured),
    )


def _image_scores(target: Volume, image: Volume, base: Volume | None, metrics: tuple[str, ...]) -> dict[str, float]:
    scores = score_volume(target, image, metrics)
    if base is not None:
        scores["detail"] = detail_share(target, image, base)
        scores["agreement"] = detail_agreement(target, image, base)
    return scores


def _spectrum_scores(error: NDArray[Any]) -> dict[str, float]:
    return {"spectrum": spectral_distance(error), "fine": fine_detail_excess(error)}


def _facts(target: Volume, measured: Measured) -> dict[str, float]:
    header = measured.case.header
    mask = np.broadcast_to(measured.mask, header.matrix)
    return {
        "true_acceleration": true_acceleration(np.array(mask), padding=header.padding),
        "residual_of_target": residual_of(target, measured),
    }
