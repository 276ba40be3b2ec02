"""What is minimised: the loss on the fully sampled images plus the weighted distillation terms."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nnunet_kd.distillation.objective import FeaturePair, Term, build_terms
from nnunet_kd.errors import UsageError
from nnunet_kd.losses import FeatureLoss, ImageLoss, OutputLoss, Reference
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.recon.training.rates import Stage
from nnunet_kd.recon.training.supervision import magnitude

NEEDS_CLASSES = ("ifvd", "region_affinity", "feature_kl")  # compare what lies inside the labels' regions
SUPERVISION = "supervision"


def check_terms(settings: KDSettings) -> None:
    """Refuse terms that want class probabilities or labels, which no reconstruction has.

    Raises:
        UsageError: Names the term and those that fit.
    """
    for term in build_terms(settings.losses):
        name = term.name.rpartition("_")[0] if term.name.rpartition("_")[2].isdecimal() else term.name
        if isinstance(term.loss, OutputLoss) or name in NEEDS_CLASSES:
            raise UsageError(
                f"kd block: loss '{name}' compares classes, a reconstruction has none; "
                "expected e.g. attention_transfer, fitnet, similarity_preserving or imitation"
            )
    if settings.teacher_outputs != "online":
        raise UsageError("kd block, teacher_outputs: expected 'online' for reconstruction, got 'cached'")


class ReconObjective:
    """The weighted sum of supervision and distillation, in float32.

    Attributes:
        terms: Distillation losses of weight above 0.

    Args:
        supervision: Loss on magnitudes, called with prediction and target, ``(B, h, w)``.
        settings: Of the plans; ``None`` without distillation.
    """

    def __init__(self, supervision: Callable[[Tensor, Tensor], Tensor], settings: KDSettings | None) -> None:
        self._supervision = supervision
        self._weight = 1.0 if settings is None else settings.supervision_weight
        self.terms: list[Term] = [] if settings is None else build_terms(settings.losses)

    @property
    def feature_losses(self) -> dict[str, FeatureLoss]:
        """The losses that compare features, by the name of their term."""
        return {term.name: term.loss for term in self.terms if isinstance(term.loss, FeatureLoss)}

    def active(self, stage: Stage, progress: float) -> list[Term]:
        """Return the terms that count.

        Args:
            stage: Of the training.
            progress: Share of the stage that is done.
        """
        return [term for term in self.terms if _counts(term, stage) and term.is_active(progress)]

    def __call__(
        self,
        output: Tensor,
        target: Tensor,
        *,
        stage: Stage,
        progress: float = 0.0,
        teacher: Tensor | None = None,
        features: Mapping[str, Sequence[FeaturePair]] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total and its unweighted parts.

        Args:
            output: The student's image, cropped as the target, ``(B, h, w)``, complex or real.
            target: Magnitudes, same shape.
            stage: Of the training.
            progress: Share of the stage that is done.
            teacher: The teachers' mean image, same shape.
            features: The pairs of feature maps per term that needs them.

        Returns:
            The scalar to minimise, and detached scalars: ``supervision`` where it counts, and one per active term.
        """
        total, parts = torch.zeros((), device=target.device), {}
        if stage.supervision and self._weight > 0:
            supervised = self._supervision(magnitude(output), target)
            total, parts[SUPERVISION] = total + self._weight * supervised, supervised.detach()
        for term in self.active(stage, progress):
            value = self._value(term, output, teacher, (features or {}).get(term.name, ()))
            total, parts[term.name] = total + term.factor(progress) * value, value.detach()
        return total, parts

    def _value(self, term: Term, output: Tensor, teacher: Tensor | None, pairs: Sequence[FeaturePair]) -> Tensor:
        if isinstance(term.loss, ImageLoss):
            if teacher is None:
                raise ValueError(f"{term.name} needs the teachers' image")
            return term.loss(output, teacher)
        nothing = Reference(labels=output.new_zeros((), dtype=torch.float32), n_channels=0)  # nobody reads it
        value = torch.zeros((), device=output.device)
        for student, theirs, share in pairs:
            loss: FeatureLoss = term.loss  # type: ignore[assignment]  # the only other kind
            value = value + share * loss(student.float(), theirs.float(), nothing)
        return value


def _counts(term: Term, stage: Stage) -> bool:
    return stage.features if isinstance(term.loss, FeatureLoss) else stage.images
