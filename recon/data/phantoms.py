"""Phantoms with anatomy, phase, coils and noise: a raw data set for tests and the demo, made in seconds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.output import work_folder
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.data.arrays import centre_crop, root_sum_of_squares, to_images, to_kspace
from nnunet_kd.recon.data.cases import ENDING, Volume, make_volume, write_volume
from nnunet_kd.recon.data.dataset import DATASET_JSON, SIMULATED, TEST, TRAINING, check_settings

# Centre, half-axes (x, y, z; the image's half-width is 1), angle [degrees] and added intensity, after the modified
# Shepp-Logan phantom (Toft, The Radon Transform, 1996).
_HEAD = (
    ((0.0, 0.0, 0.0), (0.69, 0.90, 1.1), 0.0, 1.0),
    ((0.0, -0.0184, 0.0), (0.6624, 0.850, 1.05), 0.0, -0.75),
    ((0.22, 0.0, 0.0), (0.11, 0.31, 0.7), -18.0, -0.2),
    ((-0.22, 0.0, 0.0), (0.16, 0.41, 0.7), 18.0, -0.2),
    ((0.0, 0.35, -0.1), (0.21, 0.25, 0.6), 0.0, 0.2),
    ((0.0, 0.1, 0.2), (0.06, 0.06, 0.5), 0.0, 0.25),
    ((0.0, -0.1, 0.2), (0.05, 0.06, 0.5), 0.0, 0.25),
    ((-0.08, -0.605, 0.0), (0.06, 0.03, 0.6), 0.0, 0.3),
    ((0.06, -0.605, 0.0), (0.03, 0.06, 0.6), 0.0, 0.3),
)
_DETAILS = 12  # small ellipsoids per head, which no two phantoms share


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What phantoms look like.

    Attributes:
        n_slices: Slices of a volume.
        matrix: Of k-space, ``(H, W)``.
        target_size: Of the target, ``(h, w)``; the matrix by default. Less rows mean readout oversampling.
        coils: Coils; 1 makes a single-coil data set.
        phase: Largest phase [rad] of the image; smooth.
        noise: Standard deviation of the complex noise in k-space and images, relative to the largest intensity.
    """

    n_slices: int = 4
    matrix: tuple[int, int] = (64, 64)
    target_size: tuple[int, int] | None = None
    coils: int = 1
    phase: float = 1.0
    noise: float = 0.005


def head(n_slices: int, matrix: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a head: the Shepp-Logan phantom with jittered organs and small details of its own.

    Args:
        n_slices: Slices through the middle of the head.
        matrix: ``(H, W)``.
        rng: Source of the anatomy.

    Returns:
        Intensities from 0 to 1, ``(n_slices, H, W)``; edges are one pixel wide.
    """
    z, y, x = np.meshgrid(
        np.linspace(-0.5, 0.5, n_slices) if n_slices > 1 else np.zeros(1),
        *(np.linspace(-1, 1, n, endpoint=False) + 1 / n for n in matrix),
        indexing="ij",
    )
    pixel = 2 / min(matrix)
    image: NDArray[np.float64] = np.zeros(x.shape)
    for centre, axes, angle, intensity in (*_jittered(rng), *_details(rng)):
        image += intensity * _ellipsoid((x, y, z), centre, axes, angle, pixel)
    return np.clip(image, 0, 1).astype(np.float32)


def _jittered(rng: np.random.Generator) -> list[tuple[Any, Any, float, float]]:
    size = rng.uniform(0.9, 1.05, 3)
    organs = []
    for number, (centre, axes, angle, intensity) in enumerate(_HEAD):
        loose = number > 1  # the skull and what fills it stay concentric
        scale = size * (rng.uniform(0.85, 1.15, 3) if loose else 1)
        shift = rng.normal(0, 0.02, 3) if loose else 0
        level = intensity * (rng.uniform(0.7, 1.3) if loose else 1)
        organs.append((np.asarray(centre) + shift, np.asarray(axes) * scale, angle + rng.normal(0, 4) * loose, level))
    return organs


def _details(rng: np.random.Generator) -> list[tuple[Any, Any, float, float]]:
    centres = rng.uniform(-1, 1, (_DETAILS, 3)) * np.array([0.4, 0.55, 0.5])
    axes = rng.uniform(0.02, 0.08, (_DETAILS, 3)) * np.array([1, 1, 5])
    levels = rng.uniform(0.1, 0.3, _DETAILS) * rng.choice([-1, 1], _DETAILS)
    return [(*both, rng.uniform(0, 180), level) for *both, level in zip(centres, axes, levels, strict=True)]


def _ellipsoid(
    grid: tuple[NDArray[Any], ...],
    centre: NDArray[np.float64],
    axes: NDArray[np.float64],
    angle: float,
    pixel: float,
) -> NDArray[Any]:
    x, y, z = (coordinates - middle for coordinates, middle in zip(grid, centre, strict=True))
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    radius = np.sqrt(((cos * x + sin * y) / axes[0]) ** 2 + ((cos * y - sin * x) / axes[1]) ** 2 + (z / axes[2]) ** 2)
    depth: NDArray[Any] = (1 - radius) * min(axes[:2]) / pixel + 0.5
    edge: NDArray[Any] = np.clip(depth, 0, 1)
    return edge


def smooth_phase(matrix: tuple[int, int], largest: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a phase that varies over the whole image, as receivers and field errors cause it.

    Args:
        matrix: ``(H, W)``.
        largest: Largest absolute value [rad].
        rng: Source of its shape.
    """
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in matrix), indexing="ij")
    terms = np.stack([x, y, x * y, x**2 - y**2, np.sin(2 * x), np.cos(2 * y)])
    phase: NDArray[np.float64] = np.tensordot(rng.normal(size=len(terms)), terms, axes=1)
    return phase * largest / max(float(np.abs(phase).max()), 1e-12)


def coil_sensitivities(n_coils: int, matrix: tuple[int, int], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Draw smooth sensitivities of coils around the head; their root sum of squares is 1 everywhere.

    Args:
        n_coils: C; a single one is 1 everywhere.
        matrix: ``(H, W)``.
        rng: Source of widths and phases.

    Returns:
        ``(C, H, W)``.
    """
    if n_coils == 1:
        return np.ones((1, *matrix), np.complex64)
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in matrix), indexing="ij")
    angles = 2 * np.pi * (np.arange(n_coils) + rng.uniform()) / n_coils
    coils = [
        np.exp(-((x - 1.1 * np.cos(angle)) ** 2 + (y - 1.1 * np.sin(angle)) ** 2) / (2 * rng.uniform(0.7, 0.9) ** 2))
        * np.exp(1j * (angle + smooth_phase(matrix, 1.0, rng)))
        for angle in angles
    ]
    stacked = np.stack(coils)
    result: NDArray[np.complex64] = (stacked / np.sqrt((np.abs(stacked) ** 2).sum(axis=0))).astype(np.complex64)
    return result


def make_phantom(name: str, settings: PhantomSettings, *, seed: int, patient: str = "") -> Volume:
    """Make one fully sampled volume.

    The target is the magnitude of the measured images, noise included, as fastMRI's targets are.

    Args:
        name: Of the case.
        settings: What it looks like.
        seed: Of anatomy, phase, coils and noise.
        patient: Whose; the name by default.
    """
    rng = np.random.default_rng(seed)
    intensities = head(settings.n_slices, settings.matrix, rng)
    images = intensities * np.exp(1j * smooth_phase(settings.matrix, settings.phase, rng))
    kspace = to_kspace(images[:, None] * coil_sensitivities(settings.coils, settings.matrix, rng))
    scale = settings.noise * float(intensities.max()) / np.sqrt(2)
    kspace = kspace + scale * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))
    target = centre_crop(root_sum_of_squares(to_images(kspace)), settings.target_size or settings.matrix)
    return make_volume(
        name,
        kspace[:, 0] if settings.coils == 1 else kspace,
        patient=patient,
        target=target,
        acquisition="PHANTOM",
        source_format="phantom",
    )


def make_phantom_dataset(
    folder: Path,
    n_cases: int = 6,
    *,
    n_test: int = 2,
    cases_per_patient: int = 1,
    settings: PhantomSettings | None = None,
    sampling: Mapping[str, Any] | None = None,
    truncation: tuple[int, int] | None = None,
    seed: int = 0,
) -> Path:
    """Write a raw data set of phantoms; the folder appears when it is complete.

    Args:
        folder: ``.../DatasetXXX_Name``; must not exist.
        n_cases: Training cases.
        n_test: Test cases, with their targets.
        cases_per_patient: Consecutive cases that share a patient.
        settings: What they look like.
        sampling: Masks of ``dataset.json``; fastMRI's random ones of factor 4 by default.
        truncation: Factors ``(fy, fx)``; makes it a data set for super-resolution.
        seed: Of the first case; the others count on from there.

    Returns:
        The folder.

    Raises:
        OSError: If the folder exists and is not empty, or may not be written.
    """
    settings = settings or PhantomSettings()
    names = [f"phantom_{number:03d}" for number in range(n_cases + n_test)]
    # training and test cases never share a patient
    patients = {
        name: f"patient_{part}{index // cases_per_patient:03d}"
        for part, cases in (("r", names[:n_cases]), ("s", names[n_cases:]))
        for index, name in enumerate(cases)
    }
    content = _description(folder.name, settings, patients, n_cases) | _degradation(sampling, truncation)
    check_settings(content, names[:n_cases], names[n_cases:], DATASET_JSON)
    with work_folder(folder) as work:
        new = work / "new"
        for number, name in enumerate(names):
            part = new / (TRAINING if number < n_cases else TEST)
            part.mkdir(parents=True, exist_ok=True)
            volume = make_phantom(name, settings, seed=seed + number, patient=patients[name])
            write_volume(part / f"{name}{ENDING}", volume)
        write_json_atomically(content, new / DATASET_JSON)
        new.rename(folder)
    return folder


def _degradation(sampling: Mapping[str, Any] | None, truncation: tuple[int, int] | None) -> dict[str, Any]:
    if truncation:
        return {"task": "super_resolution", "truncation": {"factor": list(truncation)}}
    masks = sampling or {"mask": "random", "acceleration": 4, "center_fraction": 0.08}
    return {"task": "reconstruction", "sampling": dict(masks)}


def _description(name: str, settings: PhantomSettings, patients: Mapping[str, str], n_cases: int) -> dict[str, Any]:
    return {
        "name": name.partition("_")[2],
        "acquisition": "single_coil" if settings.coils == 1 else "multi_coil",
        "kspace": SIMULATED,
        "patients": dict(patients),
        "numTraining": n_cases,
        "file_ending": ENDING,
        "licence": "CC0",
        "reference": "phantoms of nnunet_kd",
    }
