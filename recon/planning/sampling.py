"""The block ``sampling`` of plans and of ``dataset.json``: which masks are drawn, and whether they change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.planning.json_blocks import check_number, read_block, write_block
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask, seed_of

FIXED = "fixed_seed"


@dataclass(frozen=True, kw_only=True)
class PlannedSampling:
    """Masks as plans want them.

    Attributes:
        settings: What is drawn.
        fixed_seed: Of the one mask that all volumes share, in training too, as KD-MRI has it; ``None`` draws each
            volume's own, and a fresh one for every sample in training.
    """

    settings: SamplingSettings
    fixed_seed: int | None = None

    def draw(self, shape: tuple[int, ...], name: str, seed: int | None = None) -> NDArray[np.float32]:
        """Draw a mask, float32, ``(H or 1, W or 1)``.

        Args:
            shape: Of the matrix, ``(H, W)``.
            name: Of the volume; seeds its mask.
            seed: Of a fresh mask; ``None`` for the volume's own.
        """
        if self.fixed_seed is not None:
            seeds: Any = self.fixed_seed
        else:
            seeds = seed_of(name) if seed is None else seed
        return make_mask(self.settings, (shape[0], shape[1]), seed=seeds)

    def to_json(self) -> dict[str, Any]:
        """Return the block that :func:`planned_sampling` reads back."""
        block: dict[str, Any] = write_block(self.settings)
        return block if self.fixed_seed is None else {**block, FIXED: self.fixed_seed}


def planned_sampling(block: Mapping[str, Any], where: str = "sampling") -> PlannedSampling:
    """Read the block.

    Args:
        block: Settings of masks, and perhaps ``fixed_seed``.
        where: How to name it in messages.

    Raises:
        UsageError: For an unknown key or a value out of range.
    """
    fixed_seed = block.get(FIXED)
    if fixed_seed is not None:
        check_number(fixed_seed, f"{where}, {FIXED}", at_least=0, at_most=2**32 - 1, whole=True)
    settings = read_block(SamplingSettings, {key: value for key, value in block.items() if key != FIXED}, where)
    return PlannedSampling(settings=settings, fixed_seed=fixed_seed)
