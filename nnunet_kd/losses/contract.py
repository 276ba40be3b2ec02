"""What the registry's losses have in common: settings of the ``kd`` block, called with student and teacher."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nnunet_kd.distillation.hierarchy import Row, read_row
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import WEIGHTINGS, voxel_weights

AUTO = "auto"


def check_number(
    name: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> None:
    """Refuse a setting that is no finite number in its range.

    Args:
        name: The setting's name.
        value: Its value.
        above: Bound that is not allowed itself.
        at_least: Lowest value allowed.
        at_most: Highest value allowed.

    Raises:
        ValueError: Names setting, range and value.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (fits and above < value and at_least <= value <= at_most):  # type: ignore[operator]  # a number by now
        bounds = ((" >", above), (" >=", at_least), (" and at most", at_most))
        text = "".join(f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
        raise ValueError(f"{name}: expected a number{text}, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Refuse a setting that is neither true nor false.

    Raises:
        ValueError: Names setting and value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {value!r}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of its values.

    Raises:
        ValueError: Names setting, values and what came.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class OutputLoss(ABC):
    """Compares the student's logits with the teachers' mean probabilities, at every deep-supervision scale.

    Attributes:
        temperature: T > 0, the same for teacher and student.
        guide_ignored: Whether voxels of the ignore label, which have no supervision, keep the teacher's guidance.
        weighting: How much each voxel counts, see :func:`nnunet_kd.losses.weighting.voxel_weights`.
    """

    temperature: float = 1.0
    guide_ignored: bool = True
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_flag("guide_ignored", self.guide_ignored)
        check_choice("weighting", self.weighting, WEIGHTINGS)

    def weights(self, reference: Reference) -> Tensor | None:
        """Return how much each voxel counts, ``(B, 1, *spatial)``; ``None``: all alike."""
        return voxel_weights(reference, self.weighting, guide_ignored=self.guide_ignored)

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one scale.

        Args:
            student: Logits, ``(B, C, *spatial)``.
            teacher: Probabilities at :attr:`temperature`, same shape.
            reference: The labels at this scale.

        Returns:
            A scalar in float32.
        """


@dataclass(frozen=True, kw_only=True)
class FeatureLoss(ABC):
    """Compares feature maps of student and teacher, pair by pair; the mean over pairs is the term.

    Attributes:
        pairs: ``auto`` (stages of the same kind and stride), ``encoder``, ``decoder`` or ``bottleneck`` (those
            of them), or a list of ``[student module, teacher module]`` by dotted names or by the selectors of
            :mod:`nnunet_kd.distillation.hierarchy`, several of them combined.
    """

    pairs: "str | tuple[Row, ...]" = AUTO

    def __post_init__(self) -> None:
        if isinstance(self.pairs, list | tuple):
            object.__setattr__(self, "pairs", tuple(read_row(row) for row in self.pairs))
            if not self.pairs:
                raise ValueError("pairs: expected at least one pair")
        elif self.pairs not in PAIRINGS:
            raise ValueError(
                f"pairs: expected one of {', '.join(PAIRINGS)} or a list of [student module, teacher module], "
                f"got {self.pairs!r}"
            )

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:  # noqa: ARG002
        """Return the trainable module that the student's features pass through first, ``None`` without one.

        It is trained with the student and thrown away with the teacher.

        Args:
            student_channels: Channels of the student's feature map.
            teacher_channels: Channels of the teacher's.
            n_axes: 2 or 3.
        """
        return None

    def target_projection(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:  # noqa: ARG002
        """Return the module that the teacher's features pass through first, ``None`` without one.

        It gets no gradient: a target that may learn becomes what is easiest to hit.

        Args:
            student_channels: Channels of the student's feature map.
            teacher_channels: Channels of the teacher's.
            n_axes: 2 or 3.
        """
        return None

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one pair of feature maps.

        Args:
            student: Features after the adapter, ``(B, C_s, *spatial)``.
            teacher: Features after the projection, ``(B, C_t, *spatial)``: pooled or resized to the same spatial size.
            reference: The labels at this resolution.

        Returns:
            A scalar in float32.
        """


@dataclass(frozen=True, kw_only=True)
class ImageLoss(ABC):
    """Compares the images that student and teacher return. Only reconstruction has them: segmentation refuses it."""

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the images.

        Args:
            student: ``(B, H, W)``, complex64, or float32 of a network that works on magnitudes.
            teacher: Same shape.

        Returns:
            A scalar in float32.
        """


PAIRINGS = (AUTO, "encoder", "decoder", "bottleneck")


def adapt_unequal_channels(student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:
    """Return a pointwise convolution to the teacher's channels, ``None`` where their number is the same."""
    if student_channels == teacher_channels:
        return None
    return pointwise_convolution(student_channels, teacher_channels, n_axes)


def pointwise_convolution(channels_in: int, channels_out: int, n_axes: int) -> nn.Module:
    """Return a 1x1 (1x1x1) convolution without bias, the usual adapter of channels.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
        n_axes: 2 or 3.
    """
    convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
    return convolution(channels_in, channels_out, kernel_size=1, bias=False)
