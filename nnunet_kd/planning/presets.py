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
        trainer: The trainer it is published with; ``KDTrainer``, nnU-Net's recipe, trains every method too.
    """

    summary: str
    losses: tuple[LossTerm, ...]
    trainer: str = "KDTrainer"


def _term(name: str, weight: float = 1.0, schedule: str = "constant", **options: Any) -> LossTerm:  # noqa: ANN401
    return LossTerm(name=name, weight=weight, schedule=schedule, options=options)


# The background is most of the voxels: at full weight from the first step its easy agreement can keep small structures
# from starting at all in small students, so this weight grows with what they have learnt.
_KD = _term("logits_kl", schedule="ramp", temperature=2.0)

# Gorade et al. 2024 weigh pixel terms by 0.1 and feature terms by 0.9, and sum over pairs where a term here averages:
# the factors of 2 to 5 below are the published numbers of pairs, so that the sum is the same on the published networks
# and no larger on deeper ones. The outputs of student and teacher have the same channels and need no projector.
_PIXEL, _FEATURE = 0.1, 0.9
_OUTPUTS = _term("logits_kl", weight=_PIXEL, temperature=4.0)


def _attention(weight: float, *pairs: list[Any]) -> LossTerm:
    return _term("attention_transfer", weight=round(weight, 6), exponent=4.0, pairs=list(pairs))


def _pixels(weight: float, *pairs: list[Any], **options: Any) -> LossTerm:  # noqa: ANN401
    return _term("feature_kl", weight=round(weight, 6), temperature=4.0, pairs=list(pairs), **options)


_LAST_TO_LAST = ["encoder[-1]", "encoder[-1]"]
_LOW_AND_HIGH = [["encoder[0]", "encoder[0]"], ["encoder[2]", "encoder[2]"]]

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
        summary="outputs, attention and the affinity of classes at all stages, balanced (after EMKD, Qin et al. 2021)",
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
    "emkd": Preset(
        summary="outputs, attention and affinity at the stem and the third stage, as published (EMKD, Qin et al. 2021)",
        losses=(
            _OUTPUTS,
            _attention(2 * _FEATURE, *_LOW_AND_HIGH),
            _term("region_affinity", weight=2 * _FEATURE, pairs=_LOW_AND_HIGH),
        ),
        trainer="HLFDTrainer",
    ),
    "hlfd": Preset(
        summary="middle layers teach the first, the last teaches the middle ones (HLFD, Gorade et al. 2024)",
        losses=(
            _attention(0.5 * _FEATURE, ["encoder[0]", "encoder[1:-1]"]),
            _attention(0.5 * _FEATURE * 3, ["encoder[1:-1]", "encoder[-1]"]),
            _pixels(0.5 * _PIXEL, ["decoder[0]", "decoder[:-1]"], onto="student"),
            _pixels(0.5 * _PIXEL * 3, ["decoder[1:]", "output"]),
        ),
        trainer="HLFDTrainer",
    ),
    "hlfd_attention": Preset(
        summary="ablation of hlfd: attention of the deepest encoder stage only",
        losses=(_attention(1.0, _LAST_TO_LAST),),
        trainer="HLFDTrainer",
    ),
    "hlfd_no_feedback": Preset(
        summary="ablation of hlfd: outputs and the deepest encoder stage, last to last (SKD)",
        losses=(_OUTPUTS, _attention(_FEATURE, _LAST_TO_LAST)),
        trainer="HLFDTrainer",
    ),
    "hlfd_deep": Preset(
        summary="ablation of hlfd: every stage with the teacher's stage of the same index (DKD)",
        losses=(
            _OUTPUTS,
            _attention(_FEATURE * 5, ["encoder[:]", "encoder[:]"]),
            _pixels(_PIXEL * 4, ["decoder[:]", "decoder[:]"]),
        ),
        trainer="HLFDTrainer",
    ),
    "hlfd_individual": Preset(
        summary="ablation of hlfd: the last layers teach single earlier ones (HIFD)",
        losses=(
            _OUTPUTS,
            _attention(_FEATURE * 3, _LAST_TO_LAST, ["encoder[1]", "encoder[-1]"], ["encoder[-2]", "encoder[-1]"]),
            _pixels(_PIXEL * 2, ["decoder[1]", "output"], ["decoder[-1]", "output"]),
        ),
        trainer="HLFDTrainer",
    ),
    "hlfd_concatenated": Preset(
        summary="ablation of hlfd: the last layers teach all earlier ones combined (IFD)",
        losses=(
            _OUTPUTS,
            _attention(_FEATURE * 2, _LAST_TO_LAST, [["encoder[:-1]"], "encoder[-1]"]),
            _pixels(_PIXEL, [["decoder[:]"], "output"]),
        ),
        trainer="HLFDTrainer",
    ),
    "brats": Preset(
        summary="labels and pseudo-labels of an ensemble, no term beside them (Lachinov et al. 2020)",
        losses=(),
        trainer="BraTSKDTrainer",
    ),
    "brats_kd": Preset(
        summary="brats with the teachers' probabilities beside the labels, which is ours",
        losses=(_KD,),
        trainer="BraTSKDTrainer",
    ),
    "distill_dsm": Preset(
        summary="labels only, for --student dsm_unet (Distill DSM, Maheshwari et al. 2021)",
        losses=(),
        trainer="DistillDSMTrainer",
    ),
    "distill_dsm_kd": Preset(
        summary="distill_dsm with a 3-D teacher's probabilities beside the labels, which is ours",
        losses=(_KD,),
        trainer="DistillDSMTrainer",
    ),
    "none": Preset(summary="no distillation: a control, or a teacher to be", losses=()),
}
