"""A method's own loss on the labels, called as nnU-Net calls its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.distillation.objective import deep_supervision_weights
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.reference import references
from nnunet_kd.losses.supervised import SupervisedLoss
from nnunet_kd.planning.nnunet_files import pseudo_labelled_cases


class Supervision(nn.Module):
    """A loss at every deep-supervision scale, with nnU-Net's weights of the scales, in float32.

    Attributes:
        sample_weights: How much each sample of the next batch counts, ``(B,)``; ``None``, to which every call
            returns: all alike.

    Args:
        loss: Called with logits, reference and sample weights.
        regions: Whether the labels are overlapping regions.
        ignore_label: Its value; ``None`` without one.
    """

    sample_weights: Tensor | None = None

    def __init__(self, loss: SupervisedLoss, *, regions: bool, ignore_label: int | None) -> None:
        super().__init__()
        self._loss, self._regions, self._ignore_label = loss, regions, ignore_label

    def forward(self, outputs: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the weighted sum over scales.

        Args:
            outputs: Logits ``(B, C, *spatial)``, or a list of them, finest first.
            targets: nnU-Net's targets, as many.
        """
        scales = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        found = references(targets, scales[0].shape[1], regions=self._regions, ignore_label=self._ignore_label)
        weights, self.sample_weights = self.sample_weights, None
        total = torch.zeros((), device=scales[0].device)
        for logits, reference, weight in zip(scales, found, deep_supervision_weights(len(scales)), strict=True):
            if weight > 0:
                total = total + weight * self._loss(logits.float(), reference, weights)
        return total


def confidences(dataset_json: Mapping[str, Any]) -> dict[str, float]:
    """Return the confidence of each pseudo-labelled case, as ``nnunet_kd pseudo_label`` wrote it into dataset.json.

    Raises:
        UsageError: If the data set has none, or the file has another form.
    """
    cases = pseudo_labelled_cases(dataset_json, "the data set's dataset.json")
    if not cases:
        raise UsageError(
            "sample_weights 'confidence': expected pseudo-labelled cases in the data set's dataset.json, found none; "
            "make them with nnunet_kd pseudo_label, or plan with --sample-weights equal"
        )
    return {case: float(entry["confidence"]) for case, entry in cases.items()}


def sample_weights(cases: Sequence[str], known: Mapping[str, float]) -> Tensor:
    """Return the weights of a batch, ``(B,)``: a pseudo-labelled case's confidence, 1 for the others.

    Args:
        cases: Identifier of each sample.
        known: Confidences by case.
    """
    return torch.tensor([known.get(case, 1.0) for case in cases])
