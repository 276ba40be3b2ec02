"""Named kd blocks: what ``nnunet_kd plan --method`` writes."""

from dataclasses import dataclass

from nnunet_kd.planning.kd_block import LossTerm


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A method: its losses and one line on it.

    Attributes:
        summary: What it does and its source.
        losses: Terms of the kd block.
    """

    summary: str
    losses: tuple[LossTerm, ...]


PRESETS: dict[str, Preset] = {
    "kd": Preset(
        summary="the teacher's softened probabilities at every output (Hinton et al. 2015), T = 2",
        losses=(LossTerm(name="logits_kl", options={"temperature": 2.0}),),
    ),
    "none": Preset(summary="no distillation: a control, or a teacher to be", losses=()),
}
