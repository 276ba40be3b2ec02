"""Which pseudo-labelled cases are worth training on."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from nnunet_kd.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the members of an ensemble say of their own label of a case.

    Attributes:
        confidence: In [0, 1], see :func:`nnunet_kd.pseudo_labels.ensemble.confidence`.
        disagreement: In [0, 1], see :func:`nnunet_kd.pseudo_labels.ensemble.disagreement`.
    """

    confidence: float
    disagreement: float


def check_limits(keep_fraction: float, max_disagreement: float) -> None:
    """Refuse limits that mean nothing.

    Raises:
        UsageError: If ``keep_fraction`` is outside (0, 1] or ``max_disagreement`` outside [0, 1].
    """
    if not 0 < keep_fraction <= 1:
        raise UsageError(f"--keep-fraction: expected a share above 0 and up to 1, got {keep_fraction:g}; e.g. 0.8")
    if not 0 <= max_disagreement <= 1:
        raise UsageError(f"--max-disagreement: expected a number from 0 to 1, got {max_disagreement:g}; e.g. 0.2")


def left_out(
    judged: Mapping[str, Judgement], *, keep_fraction: float = 1.0, max_disagreement: float = 1.0
) -> dict[str, str]:
    """Return the cases that are not kept, and why.

    A case is kept if it is among the ``ceil(keep_fraction * N)`` most confident ones of all ``N``, and its members
    disagree by no more than ``max_disagreement``. Of equally confident cases the first ones by name count as more so.

    Args:
        judged: All cases that were labelled.
        keep_fraction: In (0, 1].
        max_disagreement: In [0, 1].

    Example:
        >>> left_out({"a": Judgement(confidence=0.9, disagreement=0.5), "b": Judgement(confidence=0.6, disagreement=0)},
        ...          keep_fraction=0.5)
        {'b': 'confidence 0.600 is not among the highest 1 of 2'}
    """
    ranked = sorted(judged, key=lambda case: (-judged[case].confidence, case))
    n_kept = ceil(keep_fraction * len(ranked) - 1e-9)  # 0.1 * 30 must not become 4
    confident = set(ranked[:n_kept])
    reasons = {}
    for case, judgement in judged.items():
        if case not in confident:
            reasons[case] = f"confidence {judgement.confidence:.3f} is not among the highest {n_kept} of {len(judged)}"
        elif judgement.disagreement > max_disagreement:
            reasons[case] = f"disagreement {judgement.disagreement:.3f} is above {max_disagreement:g}"
    return reasons
