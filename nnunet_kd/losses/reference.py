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
