"""How closely an exported network agrees with PyTorch: logits, labels and Dice, and what is tolerated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.example_patches import Patch
from nnunet_kd.deployment.inference.plan import InferencePlan
from nnunet_kd.errors import UsageError

Array = NDArray[np.float32]
Network = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What an export may differ by at most.

    Attributes:
        voxels: Share of voxels with another label, in [0, 1].
        logit: Difference of a logit; ``None`` for any.
        dice: Drop of the mean Dice, in [0, 1]; ``None`` for any.
    """

    voxels: float
    logit: float | None = None
    dice: float | None = None


def default_tolerance(runtime: str, precision: str) -> Tolerance:
    """Return what an export may differ by unless it is said.

    Rounding of bfloat16 and int8 shifts logits by far more than it changes labels, so that these are reported only.
    OpenVINO's own normalisation adds up in single precision: its error grows with the patch and is some 10^-3 at 40 x
    56 x 40. ONNX bundles have a more exact one.

    Args:
        runtime: ``openvino`` or ``onnx``.
        precision: ``f32``, ``bf16`` or ``int8``.
    """
    if precision != "f32":
        return Tolerance(voxels={"bf16": 0.01, "int8": 0.02}[precision])
    return Tolerance(voxels=0.001, logit=0.1 if runtime == "openvino" else 0.001)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Figures of one precision against PyTorch in float32, over all patches together.

    Attributes:
        max_logit_difference: Largest difference of a logit.
        max_logit: Largest logit of PyTorch's, by magnitude: what the difference is to be seen against.
        voxel_agreement: Share of voxels with equal labels; with regions, equal in all of them.
        dice_of_predictions: Dice between both predictions per structure; ``None`` where it is in neither.
        dice_reference: Mean Dice of PyTorch's prediction with the reference labels; ``None`` without labels.
        dice_exported: The same of the exported network's.
        dice_drop: By how much the mean Dice fell, negative for a rise; without labels, one minus the mean of
            ``dice_of_predictions``.
    """

    max_logit_difference: float
    max_logit: float
    voxel_agreement: float
    dice_of_predictions: dict[str, float | None]
    dice_reference: float | None
    dice_exported: float | None
    dice_drop: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return asdict(self)


def structures(plan: InferencePlan) -> dict[str, tuple[int, ...]]:
    """Return the labels of each foreground structure in the order of the network's channels.

    Without regions these begin at the second channel, the first being the background.
    """
    named = {name: value if isinstance(value, tuple) else (value,) for name, value in plan.labels.items()}
    foreground = {name: values for name, values in named.items() if name != "ignore" and set(values) != {0}}
    return foreground if plan.has_regions else dict(sorted(foreground.items(), key=lambda entry: entry[1]))


def predicted_masks(logits: Array, plan: InferencePlan) -> NDArray[np.bool_]:
    """Return which voxels belong to each structure, ``(n_structures, *patch)``, from logits ``(C, *patch)``."""
    if plan.has_regions:
        return logits > 0
    winner = logits.argmax(axis=0)
    return np.stack([winner == channel for channel in range(1, len(logits))])


def reference_masks(labels: NDArray[np.integer], plan: InferencePlan) -> NDArray[np.bool_]:
    """Return which voxels belong to each structure, ``(n_structures, *patch)``, from labels ``(*patch)``."""
    return np.stack([np.isin(labels, values) for values in structures(plan).values()])


def run_network(network: Network, patches: Sequence[Patch]) -> list[Array]:
    """Return the logits ``(C, *patch)`` of each patch."""
    return [np.array(network(patch.image[None])[0]) for patch in patches]


def compare(
    expected: Sequence[Array], found: Sequence[Array], patches: Sequence[Patch], plan: InferencePlan
) -> Agreement:
    """Compare an exported network's logits with PyTorch's.

    Args:
        expected: PyTorch's, ``(C, *patch)`` per patch.
        found: The exported network's.
        patches: What both saw.
        plan: The model's.

    Raises:
        UsageError: If the exported network returns other shapes, or values that are not finite.
    """
    for ours, theirs in zip(found, expected, strict=True):
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            raise UsageError(
                f"the exported network returns {'another shape' if ours.shape != theirs.shape else 'no finite numbers'}"
                f" ({ours.shape}, expected {theirs.shape}); predict with nnUNetv2_predict"
            )
    equal, between = [], _Overlaps()
    with_labels = {"expected": _Overlaps(), "found": _Overlaps()}
    for ours, theirs, patch in zip(found, expected, patches, strict=True):
        masks = {"found": predicted_masks(ours, plan), "expected": predicted_masks(theirs, plan)}
        equal.append((masks["found"] == masks["expected"]).all(axis=0).mean())
        between.add(masks["expected"], masks["found"])
        if patch.labels is not None:
            counted = patch.labels != plan.ignore_label
            for name, overlaps in with_labels.items():
                overlaps.add(reference_masks(patch.labels, plan)[:, counted], masks[name][:, counted])
    has_labels = bool(with_labels["found"].scores().size)
    means = {name: overlaps.mean() for name, overlaps in with_labels.items()}
    return Agreement(
        max_logit_difference=max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)),
        max_logit=max(float(np.abs(logits).max()) for logits in expected),
        voxel_agreement=float(np.mean(equal)),
        dice_of_predictions={
            name: None if np.isnan(score) else float(score)
            for name, score in zip(structures(plan), between.scores(), strict=True)
        },
        dice_reference=means["expected"] if has_labels else None,
        dice_exported=means["found"] if has_labels else None,
        dice_drop=means["expected"] - means["found"] if has_labels else 1 - between.mean(),
    )


class _Overlaps:
    """Sums over patches from which each structure's Dice follows."""

    def __init__(self) -> None:
        self._common = self._total = np.zeros(0)

    def add(self, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> None:
        """Count one patch's masks, ``(n_structures, ...)`` each."""
        axes = tuple(range(1, first.ndim))
        common, total = (first & second).sum(axes), first.sum(axes) + second.sum(axes)
        is_first = not self._total.size
        self._common = common if is_first else self._common + common
        self._total = total if is_first else self._total + total

    def scores(self) -> NDArray[np.float64]:
        """Return the Dice per structure, ``nan`` where it is in neither."""
        return np.where(self._total > 0, 2 * self._common / np.maximum(self._total, 1), np.nan)

    def mean(self) -> float:
        """Return the mean over structures that are there, 1 without any."""
        scores = self.scores()
        return float(np.nanmean(scores)) if np.isfinite(scores).any() else 1.0


def check_agreement(agreement: Agreement, tolerance: Tolerance, precision: str) -> None:
    """Refuse an export that differs by more than is tolerated.

    Raises:
        UsageError: Names the figure, the limit and the option that sets it.
    """
    other = 1 - agreement.voxel_agreement
    figures = (
        ("a share of voxels with another label", other, tolerance.voxels, "--tolerance"),
        ("a logit difference", agreement.max_logit_difference, tolerance.logit, "--logit-tolerance"),
        ("a drop of the mean Dice", agreement.dice_drop, tolerance.dice, "--max-drop"),
    )
    for what, figure, limit, option in figures:
        if limit is not None and figure > limit:
            raise UsageError(
                f"the {precision} export differs from PyTorch by {what} of {figure:.6g}, more than {limit:g}; nothing "
                f"was written. Export another --precision, or allow more with {option}"
            )
