"""What the labels say about the voxels that a loss compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch import cat as concatenate
from torch.nn.functional import interpolate


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference:
    """The labels of a batch at one resolution.

    Attributes:
        labels: Label map ``(B, 1, *spatial)`` with values below ``n_channels``, or region maps
            ``(B, n_channels or more, *spatial)`` that are above 0 inside their region.
        n_channels: Channels of the network's output: classes with the background, or regions.
        regions: Whether channels are overlapping regions (sigmoid) instead of exclusive classes (softmax).
        ignored: True where the ignore label lies, ``(B, 1, *spatial)``; ``None`` without one.
    """

    labels: Tensor
    n_channels: int
    regions: bool = False
    ignored: Tensor | None = None

    @cached_property
    def masks(self) -> Tensor:
        """True inside each class or region, ``(B, n_channels, *spatial)``; False wherever the label is ignored."""
        if self.regions:
            masks = self.labels[:, : self.n_channels] > 0
        else:
            masks = concatenate([self.labels == c for c in range(self.n_channels)], dim=1)
        return masks if self.ignored is None else masks & ~self.ignored

    @cached_property
    def foreground(self) -> Tensor:
        """True inside any foreground class or region, ``(B, 1, *spatial)``."""
        return self.masks[:, 0 if self.regions else 1 :].any(dim=1, keepdim=True)

    def at(self, size: Sequence[int]) -> "Reference":
        """Return the labels at another resolution, by nearest neighbour.

        Args:
            size: Voxels per spatial axis.
        """
        if tuple(self.labels.shape[2:]) == tuple(size):
            return self
        labels = interpolate(self.labels.float(), size=tuple(size), mode="nearest-exact")
        ignored = None
        if self.ignored is not None:
            ignored = interpolate(self.ignored.float(), size=tuple(size), mode="nearest-exact") > 0
        return Reference(labels=labels, n_channels=self.n_channels, regions=self.regions, ignored=ignored)


def references(
    labels: Tensor | Sequence[Tensor], n_channels: int, *, regions: bool, ignore_label: int | None
) -> list[Reference]:
    """Return nnU-Net's training targets as references, one per scale.

    Args:
        labels: Target ``(B, 1, *spatial)`` or with regions ``(B, n_channels, *spatial)``, there with a further channel
            for the ignore label if there is one; one tensor or one per deep-supervision scale.
        n_channels: Channels of the network's output.
        regions: Whether those are overlapping regions.
        ignore_label: Value of the ignore label; ``None`` without one.
    """
    found = []
    for scale in [labels] if isinstance(labels, Tensor) else labels:
        ignored = None
        if ignore_label is not None:
            ignored = scale[:, -1:] > 0 if regions else scale == ignore_label
        found.append(Reference(labels=scale, n_channels=n_channels, regions=regions, ignored=ignored))
    return found
