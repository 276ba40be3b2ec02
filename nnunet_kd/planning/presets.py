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
        # the background is most of the voxels: at full weight from the first step its easy agreement can keep small
        # structures from starting at all in small students, so the weight grows with what they have learnt
        summary="the teacher's softened probabilities at every output (Hinton et al. 2015), T = 2, weight rising to 1",
        losses=(LossTerm(name="logits_kl", schedule="ramp", options={"temperature": 2.0}),),
    ),
    "none": Preset(summary="no distillation: a control, or a teacher to be", losses=()),
}
