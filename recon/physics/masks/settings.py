"""Settings of sampling masks, as plans and ``dataset.json`` hold them under ``sampling``."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_number

MaskName = Literal[
    "random",
    "equispaced",
    "equispaced_fraction",
    "magic",
    "magic_fraction",
    "variable_density",
    "gaussian",
    "gaussian_2d",
    "poisson_disc",
    "file",
]
# these take every R-th line
_WHOLE_STEPS = ("equispaced", "magic")
OF_POINTS = ("gaussian_2d", "poisson_disc")


class Draw(NamedTuple):
    """What one mask is drawn with.

    Attributes:
        acceleration: >= 1.
        center_fraction: Share of an axis that is fully sampled about its centre.
        n_calibration: The same as a number, which then counts instead.
        offset: First line of equally spaced ones; ``None`` draws it.
        density_std: Of a Gaussian density, as a share of the axis.
    """

    acceleration: float
    center_fraction: float
    n_calibration: int | None
    offset: int | None
    density_std: float

    def n_center(self, size: int) -> int:
        """Return how many lines about the centre of an axis are fully sampled."""
        if self.n_calibration is not None:
            return min(self.n_calibration, size)
        return round(size * self.center_fraction)

    def step(self) -> int:
        """Return the acceleration as a whole number of lines."""
        return int(self.acceleration)


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Which masks are drawn. Numbers and lists of JSON are taken as they are.

    Attributes:
        mask: Name of the family, see :data:`nnunet_kd.recon.physics.masks.MASKS`.
        acceleration: Nominal one, >= 1; of several one is drawn for each mask. ``file`` has its own.
        center_fraction: Share of an axis that is fully sampled about its centre, one for each acceleration. ``None`` is
            0.32 over the acceleration: fastMRI's 0.08 at 4 and 0.04 at 8, continued to 0.02 at 16 and 0.01 at 32.
        any_combination: Draw acceleration and centre independently of each other.
        axis: What is sampled as a whole: ``columns``, so that W is the phase encoding as in fastMRI, or ``rows``. Masks
            of points (``gaussian_2d``, ``poisson_disc``) have none.
        offset: First line of the equally spaced families; ``None`` draws it.
        n_calibration: Lines about the centre, or side of the central square of masks of points, instead of a fraction.
            ``None`` with ``variable_density`` is 10, as KD-MRI has it.
        density_std: Standard deviation of the Gaussian families' density, as a share of the axis, at least 0.02.
        file: Of the family ``file``: a ``.npy``, ``.mat`` or ``.h5`` file.
        key: Which array of a file with several.
        centred: Whether the file's zero frequency lies in the middle. ``None`` looks where the sampled centre is;
            KD-MRI's files have it at index 0.

    Raises:
        UsageError: If a setting is out of its range, or settings do not fit each other.
    """

    mask: str = "random"
    acceleration: tuple[float, ...] = (4.0,)
    center_fraction: tuple[float, ...] | None = None
    any_combination: bool = False
    axis: str = "columns"
    offset: int | None = None
    n_calibration: int | None = None
    density_std: float = 0.15
    file: str | None = None
    key: str | None = None
    centred: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "acceleration", _as_tuple(self.acceleration))
        object.__setattr__(self, "center_fraction", _as_tuple(self.center_fraction))
        check_choice(self.mask, get_args(MaskName), "sampling, mask")
        check_choice(self.axis, ("columns", "rows"), "sampling, axis")
        self._check_acceleration()
        self._check_center()
        check_number(self.density_std, "sampling, density_std", at_least=0.02)
        if self.offset is not None:
            check_number(self.offset, "sampling, offset", at_least=0, whole=True)
        for name in ("file", "key"):
            if not isinstance(getattr(self, name), str | None):
                raise UsageError(f"sampling, {name}: expected a text, got {getattr(self, name)!r:.80}")
        if (self.mask == "file") != (self.file is not None):
            raise UsageError(f"sampling: 'mask': 'file' and 'file' need each other, got {self.mask} and {self.file}")

    def _check_acceleration(self) -> None:
        for value in self.acceleration:
            check_number(value, "sampling, acceleration", at_least=1)
            if self.mask in _WHOLE_STEPS and value != int(value):
                raise UsageError(f"sampling, acceleration: mask '{self.mask}' expects a whole number, got {value}")
        if not self.acceleration:
            raise UsageError("sampling, acceleration: expected at least one number, got none")

    def _check_center(self) -> None:
        if self.n_calibration is not None:
            check_number(self.n_calibration, "sampling, n_calibration", at_least=0, whole=True)
        for value in self.center_fraction or ():
            check_number(value, "sampling, center_fraction", at_least=0, at_most=1)
        n_fractions, n_accelerations = len(self.center_fractions), len(self.acceleration)
        if n_fractions != n_accelerations and not self.any_combination:
            raise UsageError(
                f"sampling, center_fraction: expected one for each of {n_accelerations} accelerations, got "
                f'{n_fractions}; or type "any_combination": true'
            )

    @property
    def center_fractions(self) -> tuple[float, ...]:
        """The fractions, where they were left out too."""
        if self.center_fraction is not None:
            return self.center_fraction
        return tuple(0.32 / acceleration for acceleration in self.acceleration)

    def draw(self, rng: np.random.RandomState) -> Draw:
        """Draw an acceleration with its centre, in fastMRI's order of random numbers."""
        fractions = self.center_fractions
        if self.any_combination:
            fraction, acceleration = rng.choice(fractions), rng.choice(self.acceleration)
        else:
            chosen = rng.randint(len(fractions))
            fraction, acceleration = fractions[chosen], self.acceleration[chosen]
        return Draw(float(acceleration), float(fraction), self.n_calibration, self.offset, self.density_std)


def _as_tuple(value: Any) -> Any:  # noqa: ANN401  # a JSON value, checked later
    if value is None:
        return None
    return tuple(value) if isinstance(value, list | tuple) else (value,)
