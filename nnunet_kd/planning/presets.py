"""Named kd blocks: what ``nnunet_kd plan --method`` writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def _term(name: str, weight: float = 1.0, schedule: str = "constant", **options: Any) -> LossTerm:  # noqa: ANN401
    return LossTerm(name=name, weight=weight, schedule=schedule, options=options)


# The background is most of the voxels: at full weight from the first step its easy agreement can keep small structures
# from starting at all in small students, so this weight grows with what they have learnt.
_KD = _term("logits_kl", schedule="ramp", temperature=2.0)

# The other weights bring a term's gradient to about that of nnU-Net's own loss early in training (hippocampus,
# a student of 1/8 of the features): docs/reference/losses.md has the measured ratios.
PRESETS: Mapping[str, Preset] = {
    "kd": Preset(
        summary="the teacher's softened probabilities at every output (Hinton et al. 2015), T = 2, weight rising to 1",
        losses=(_KD,),
    ),
    "kd_foreground": Preset(
        summary="as kd, with half of the weight on the foreground's voxels",
        losses=(_term("logits_kl", schedule="ramp", temperature=2.0, weighting="foreground"),),
    ),
    "mse": Preset(
        summary="squared difference of the logits (Ba and Caruana 2014)", losses=(_term("logits_mse", weight=0.1),)
    ),
    "soft_dice": Preset(
        summary="Dice of the student's probabilities with the teacher's, blind to the background's size",
        losses=(_term("soft_dice"),),
    ),
    "dkd": Preset(
        summary="target class and other classes apart (decoupled distillation, Zhao et al. 2022)",
        losses=(_term("dkd", schedule="ramp"),),
    ),
    "dist": Preset(
        summary="correlation between classes and within them instead of equality (Huang et al. 2022)",
        losses=(_term("dist"),),
    ),
    "at": Preset(
        summary="where encoder and decoder are active (attention transfer, Zagoruyko and Komodakis 2017)",
        losses=(_term("attention_transfer"),),
    ),
    "fitnet": Preset(
        summary="the teacher's features through 1x1x1 adapters (FitNets, Romero et al. 2015)",
        losses=(_term("fitnet"),),
    ),
    "cwd": Preset(
        summary="where each channel is active (channel-wise distillation, Shu et al. 2021)",
        losses=(_term("cwd", weight=4.0),),
    ),
    "ifvd": Preset(
        summary="how voxels differ from the mean of their class (intra-class feature variation, Wang et al. 2020)",
        losses=(_term("ifvd", weight=4.0),),
    ),
    "affinity": Preset(
        summary="how places resemble one another (pair-wise affinity, Liu et al. 2019)",
        losses=(_term("pairwise_affinity", weight=4.0),),
    ),
    "rad": Preset(
        summary="outputs, attention and the affinity of classes together (EMKD, Qin et al. 2021)",
        losses=(
            _KD,
            _term("attention_transfer", weight=0.5, exponent=4.0, pairs="encoder"),
            _term("region_affinity", weight=2.0, pairs="encoder"),
        ),
    ),
    "mgd": Preset(
        summary="the teacher's features generated from the student's masked ones (Yang et al. 2022)",
        losses=(_term("mgd", weight=2.0),),
    ),
    "wavelet": Preset(
        summary="details of the encoder's features only, coarse content left free (after DCD, 2026)",
        losses=(_term("wavelet_detail", weight=2.0, pairs="encoder"),),
    ),
    "none": Preset(summary="no distillation: a control, or a teacher to be", losses=()),
}
