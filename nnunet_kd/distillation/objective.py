"""What is minimised: nnU-Net's own loss plus the weighted distillation terms."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.losses import LOSSES, FeatureLoss, ImageLoss, OutputLoss, Reference
from nnunet_kd.planning.kd_block import KDSettings, LossTerm

WARMUP_SHARE = 0.1

# temperature -> the teachers' mean probabilities, one tensor per scale
Targets = Mapping[float, Sequence[Tensor | None]]
# the student's map, a teacher's map of the same spatial size, and their share in the mean over pairs and members
FeaturePair = tuple[Tensor, Tensor, float]


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
    """One distillation loss with its weight.

    Attributes:
        name: Its name in the log, unique within the objective.
        weight: Factor.
        schedule: How the factor moves, see :func:`schedule_factor`.
        until: Share of the training after which the term counts no more.
        loss: The loss with its settings.
    """

    name: str
    weight: float
    schedule: str
    until: float
    loss: OutputLoss | FeatureLoss | ImageLoss

    def is_active(self, progress: float) -> bool:
        """Tell whether the term counts at this share of the training."""
        return self.until == 1 or progress < self.until

    def factor(self, progress: float) -> float:
        """Return the weight at this share of the training, its schedule stretched over the time the term has."""
        return self.weight * schedule_factor(self.schedule, min(1.0, progress / self.until))


def build_terms(losses: Sequence[LossTerm]) -> list[Term]:
    """Build the losses that a kd block names; names that occur twice are numbered, weights of 0 left out."""
    used = [term for term in losses if term.weight > 0]
    names = _unique([term.name for term in used])
    return [
        Term(
            name=name,
            weight=term.weight,
            schedule=term.schedule,
            until=term.until,
            loss=LOSSES[term.name](**term.options),
        )
        for name, term in zip(names, used, strict=True)
    ]


def feature_losses(settings: KDSettings) -> dict[str, FeatureLoss]:
    """Return the losses of a kd block that compare feature maps, by the name of their term."""
    return {term.name: term.loss for term in build_terms(settings.losses) if isinstance(term.loss, FeatureLoss)}


def refuse_image_losses(settings: KDSettings, where: str) -> None:
    """Refuse losses that compare images: a segmentation network has none.

    Args:
        settings: Of a student that segments.
        where: How to name them in the message.

    Raises:
        UsageError: Names the loss.
    """
    for term in settings.losses:
        if issubclass(LOSSES[term.name], ImageLoss):
            raise UsageError(
                f"{where}: {term.name} compares images, which only reconstruction has; "
                "take a loss on outputs or features (nnunet_kd plan --list)"
            )


class Objective:
    """The weighted sum of supervision and distillation, in float32.

    Attributes:
        supervision: nnU-Net's loss, called with outputs and targets as nnU-Net calls it.
        supervision_weight: Its factor.
        terms: Distillation losses of weight above 0.

    Raises:
        UsageError: If a loss compares images.
    """

    def __init__(self, supervision: Callable[..., Tensor], settings: KDSettings) -> None:
        refuse_image_losses(settings, "kd block")
        self.supervision = supervision
        self.supervision_weight = settings.supervision_weight
        self.terms = build_terms(settings.losses)

    @property
    def names(self) -> list[str]:
        """Names of the terms."""
        return [term.name for term in self.terms]

    def temperatures(self, progress: float = 0.0) -> tuple[float, ...]:
        """Return the temperatures at which the teachers' probabilities are needed at this share of the training."""
        active = [term.loss for term in self.terms if term.is_active(progress)]
        return tuple(sorted({loss.temperature for loss in active if isinstance(loss, OutputLoss)}))

    def active(self, progress: float) -> list[str]:
        """Return the names of the terms that count at this share of the training."""
        return [term.name for term in self.terms if term.is_active(progress)]

    def __call__(
        self,
        outputs: Sequence[Tensor],
        labels: Tensor | Sequence[Tensor],
        targets: Targets,
        *,
        references: Sequence[Reference] = (),
        features: Mapping[str, Sequence[FeaturePair]] | None = None,
        progress: float = 0.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and its unweighted parts.

        A term whose time is over is not computed and has no part.

        Args:
            outputs: The student's logits per scale, finest first, ``(B, C, *spatial)`` each.
            labels: What nnU-Net's loss takes beside them.
            targets: Teacher probabilities per temperature and scale.
            references: The labels per scale, for the distillation terms.
            features: The pairs of feature maps per term that needs them.
            progress: Share of the training that is done.

        Returns:
            The scalar to minimise, and detached scalars: ``supervision`` and one per active term.
        """
        outputs = [output.float() for output in outputs]
        supervised = outputs if isinstance(labels, list | tuple) else outputs[0]
        supervision = self.supervision(supervised, labels)
        total = self.supervision_weight * supervision
        parts = {"supervision": supervision.detach()}
        for term in self.terms:
            if not term.is_active(progress):
                continue
            if isinstance(term.loss, OutputLoss):
                value = _over_scales(term.loss, outputs, targets[term.loss.temperature], references)
            elif isinstance(term.loss, FeatureLoss):
                value = _over_pairs(term.loss, (features or {})[term.name], references[0])
            total = total + term.factor(progress) * value
            parts[term.name] = value.detach()
        return total, parts


def _over_scales(
    loss: OutputLoss, outputs: Sequence[Tensor], targets: Sequence[Tensor | None], references: Sequence[Reference]
) -> Tensor:
    total = torch.zeros((), device=outputs[0].device)
    for scale, weight in enumerate(deep_supervision_weights(len(outputs))):
        target = targets[scale]
        if weight > 0 and target is not None:
            total = total + weight * loss(outputs[scale], target, references[scale])
    return total


def _over_pairs(loss: FeatureLoss, pairs: Sequence[FeaturePair], reference: Reference) -> Tensor:
    total = torch.zeros((), device=reference.labels.device)
    for student, teacher, share in pairs:
        total = total + share * loss(student.float(), teacher.float(), reference.at(student.shape[2:]))
    return total


def _unique(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{names[:i].count(name) + 1}" for i, name in enumerate(names)]
