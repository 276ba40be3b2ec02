"""What is minimised: nnU-Net's own loss plus the weighted distillation terms."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_kd.losses import LOSSES, LogitsKL
from nnunet_kd.planning.kd_block import KDSettings, LossTerm

WARMUP_SHARE = 0.1

# temperature -> the teachers' mean probabilities, one tensor per scale
Targets = Mapping[float, Sequence[Tensor | None]]


def deep_supervision_weights(n_scales: int) -> list[float]:
    """Return nnU-Net's weights of the outputs, finest first: halved per scale, the coarsest 0, sum 1.

    A single output has weight 1.

    Example:
        >>> deep_supervision_weights(3)
        [0.6666666666666666, 0.3333333333333333, 0.0]
    """
    if n_scales == 1:
        return [1.0]
    weights = [0.5**i for i in range(n_scales - 1)]
    return [weight / sum(weights) for weight in weights] + [0.0]


def schedule_factor(schedule: str, progress: float) -> float:
    """Return the factor of a term's weight.

    Args:
        schedule: ``constant``; ``warmup``, linear from 0 to 1 over the first tenth of training;
            ``ramp``, linear from 0 to 1 over all of it; ``cosine``, from 1 to 0 along half a cosine.
        progress: Share of the training that is done, in [0, 1].

    Example:
        >>> [schedule_factor("warmup", progress) for progress in (0.0, 0.05, 0.1, 1.0)]
        [0.0, 0.5, 1.0, 1.0]
    """
    if schedule == "warmup":
        return min(1.0, progress / WARMUP_SHARE)
    if schedule == "ramp":
        return progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Term:
    """One distillation loss with its weight."""

    name: str
    weight: float
    schedule: str
    loss: LogitsKL

    @classmethod
    def from_settings(cls, term: LossTerm) -> "Term":
        """Build the loss that a kd block names."""
        return cls(name=term.name, weight=term.weight, schedule=term.schedule, loss=LOSSES[term.name](**term.options))


class Objective:
    """The weighted sum of supervision and distillation, in float32.

    Attributes:
        supervision: nnU-Net's loss, called with outputs and targets as nnU-Net calls it.
        supervision_weight: Its factor.
        terms: Distillation losses of weight above 0. Names that occur twice are numbered.
        regions: Whether outputs are overlapping regions (sigmoid).
    """

    def __init__(self, supervision: Callable[..., Tensor], settings: KDSettings, *, regions: bool) -> None:
        self.supervision = supervision
        self.supervision_weight = settings.supervision_weight
        self.regions = regions
        self.terms = [Term.from_settings(term) for term in settings.losses if term.weight > 0]
        self.names = _unique([term.name for term in self.terms])

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperatures at which the teachers' probabilities are needed."""
        return tuple(sorted({term.loss.temperature for term in self.terms}))

    def __call__(
        self,
        outputs: Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        targets: Targets,
        *,
        ignored: Sequence[Tensor] | None = None,
        progress: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and its unweighted parts.

        Args:
            outputs: The student's logits per scale, finest first, ``(B, C, *spatial)`` each.
            labels: What nnU-Net's loss takes beside them.
            targets: Teacher probabilities per temperature and scale.
            ignored: True where the ignore label lies, per scale, ``(B, 1, *spatial)``.
            progress: Share of the training that is done.

        Returns:
            The scalar to minimise, and detached scalars: ``supervision`` and one per term.
        """
        outputs = [output.float() for output in outputs]
        supervised = outputs if isinstance(labels, list | tuple) else outputs[0]
        supervision = self.supervision(supervised, labels)
        total = self.supervision_weight * supervision
        parts = {"supervision": supervision.detach()}
        for name, term in zip(self.names, self.terms, strict=True):
            value = self._over_scales(term, outputs, targets[term.loss.temperature], ignored)
            total = total + term.weight * schedule_factor(term.schedule, progress) * value
            parts[name] = value.detach()
        return total, parts

    def _over_scales(
        self, term: Term, outputs: Sequence[Tensor], targets: Sequence[Tensor | None], ignored: Sequence[Tensor] | None
    ) -> Tensor:
        total = torch.zeros((), device=outputs[0].device)
        for scale, weight in enumerate(deep_supervision_weights(len(outputs))):
            target = targets[scale]
            if weight > 0 and target is not None:
                mask = None if ignored is None else ignored[scale]
                total = total + weight * term.loss(outputs[scale], target, regions=self.regions, ignored=mask)
        return total


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{names[:i].count(name) + 1}" for i, name in enumerate(names)]
