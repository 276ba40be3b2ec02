"""The block ``generative`` of a configuration: how a generative network is trained against a discriminator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_keys, check_number, read_block

JUDGES = ("patches", "image")
GAMES = ("hinge", "logistic")
PROXIES = ("gram", "vector")


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """What tells reconstructions from true images.

    Attributes:
        channels: Of its first layer, >= 1.
        layers: Convolutions before the logits, >= 1.
        resolutions: How many, each half the one before, >= 1.
        cutoff: Below it frequencies are taken out of what is judged, in (0, 1]; ``None`` leaves the image as it is.
        judges: ``patches``: each logit is a verdict; ``image``: their mean is the only one, as published.
        game: ``hinge``, or ``logistic`` (the published non-saturating one).
        rate: Its learning rate over the generator's, > 0.
    """

    channels: int = 32
    layers: int = 3
    resolutions: int = 2
    cutoff: float | None = 0.06
    judges: str = "patches"
    game: str = "hinge"
    rate: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """Features that stand for texture, of an encoder that is trained on the true images before the first step.

    Attributes:
        weight: Of the loss, >= 0; 0 trains no encoder.
        compares: ``gram``: local moments of a sample's features with the truth's; ``vector``: the network's texture
            vector with the truth's mean features, as published. That needs a network with one.
        features: Channels of the code, >= 1; of ``vector`` the length of the network's vector counts instead.
        channels: Of the encoder's first convolution, >= 1.
        cutoff: Of its high pass, in (0, 1].
        steps: Of the encoder's training, >= 1.
        initial_lr: Of that training, Adam, > 0.
    """

    weight: float = 0.1
    compares: str = "gram"
    features: int = 32
    channels: int = 16
    cutoff: float = 0.06
    steps: int = 300
    initial_lr: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Generative:
    """Adversarial training.

    Attributes:
        baseline: ``MODEL_FOLDER`` or ``MODEL_FOLDER:FOLD`` of a trained baseline; without fold the one that is trained.
            ``None`` starts it from fresh weights.
        freeze_baseline: Whether it stays as it is. Needs ``baseline``.
        adversarial_weight: Of the discriminator's verdict at acceleration 32, >= 0; 0 at 4 and below, linear in the
            logarithm between and beyond.
        warm_up: Epochs without a discriminator, a whole number from 1 on, or their share, in [0, 1). The weight then
            grows to its own over as many epochs.
        r1_weight: Of the penalty on the discriminator's slope at true images, >= 0.
        r1_interval: Steps between two such penalties, >= 1; each counts so many times.
        ema: Decay of the weights' mean that is validated and saved, in [0, 1).
        n_samples: Per input and step, >= 1.
        spread_weight: Of the reward for samples that differ, >= 0; needs two of them.
        kl_weight: Of the code's divergence from a normal one, >= 0, for networks that encode one.
        free_bits: Divergence per number of the code that costs nothing [nat], >= 0.
        discriminator: Its settings.
        proxy: Settings of the texture features.
    """

    baseline: str | None = None
    freeze_baseline: bool = False
    adversarial_weight: float = 0.05
    warm_up: float = 0.2
    r1_weight: float = 1.0
    r1_interval: int = 16
    ema: float = 0.999
    n_samples: int = 2
    spread_weight: float = 1.0
    kl_weight: float = 0.01
    free_bits: float = 0.05
    discriminator: Discriminator = field(default_factory=Discriminator)
    proxy: Proxy = field(default_factory=Proxy)

    def warm_up_share(self, num_epochs: int) -> float:
        """Return the share of a training without a discriminator, in [0, 1]."""
        return self.warm_up if self.warm_up < 1 else min(1.0, self.warm_up / num_epochs)


# (at least, above, at most, whole number)
_BOUNDS: Mapping[str, Mapping[str, Any]] = {
    "adversarial_weight": {"at_least": 0},
    "warm_up": {"at_least": 0},
    "r1_weight": {"at_least": 0},
    "r1_interval": {"at_least": 1, "whole": True},
    "ema": {"at_least": 0, "at_most": 0.999999},
    "n_samples": {"at_least": 1, "whole": True},
    "spread_weight": {"at_least": 0},
    "kl_weight": {"at_least": 0},
    "free_bits": {"at_least": 0},
}
_DISCRIMINATOR: Mapping[str, Mapping[str, Any]] = {
    "channels": {"at_least": 1, "whole": True},
    "layers": {"at_least": 1, "whole": True},
    "resolutions": {"at_least": 1, "whole": True},
    "rate": {"above": 0, "at_most": 100},
}
_PROXY: Mapping[str, Mapping[str, Any]] = {
    "weight": {"at_least": 0},
    "features": {"at_least": 1, "whole": True},
    "channels": {"at_least": 1, "whole": True},
    "cutoff": {"above": 0, "at_most": 1},
    "steps": {"at_least": 1, "whole": True},
    "initial_lr": {"above": 0, "at_most": 10},
}


def parse_generative(data: Mapping[str, Any], where: str) -> Generative:
    """Read and check the block.

    Args:
        data: The JSON object; keys it lacks take the defaults.
        where: How to name it in messages.

    Raises:
        UsageError: For an unknown key, a value out of range, or keys that contradict each other; names the place.
    """
    check_keys(data, Generative.__dataclass_fields__, where)
    block = read_block(
        Generative,
        data,
        where,
        discriminator=_parse_discriminator(data.get("discriminator", {}), f"{where}, discriminator"),
        proxy=_parse_proxy(data.get("proxy", {}), f"{where}, proxy"),
    )
    _check_bounds(block, _BOUNDS, where)
    if block.warm_up >= 1:
        check_number(block.warm_up, f"{where}, warm_up (below 1 a share, else epochs)", whole=True)
    _check_baseline(block, where)
    return block


def _check_baseline(block: Generative, where: str) -> None:
    if block.baseline is not None and (not isinstance(block.baseline, str) or not block.baseline):
        raise UsageError(f"{where}, baseline: expected MODEL_FOLDER[:FOLD] or null, got {block.baseline!r:.80}")
    if not isinstance(block.freeze_baseline, bool):
        raise UsageError(f"{where}, freeze_baseline: expected true or false, got {block.freeze_baseline!r:.80}")
    if block.freeze_baseline and block.baseline is None:
        raise UsageError(
            f"{where}, freeze_baseline: a baseline of fresh weights would stay so; name a trained one in 'baseline', "
            "or type false"
        )


def _parse_discriminator(data: Mapping[str, Any], where: str) -> Discriminator:
    block = read_block(Discriminator, data, where)
    _check_bounds(block, _DISCRIMINATOR, where)
    if block.cutoff is not None:
        check_number(block.cutoff, f"{where}, cutoff", above=0, at_most=1)
    check_choice(block.judges, JUDGES, f"{where}, judges")
    check_choice(block.game, GAMES, f"{where}, game")
    return block


def _parse_proxy(data: Mapping[str, Any], where: str) -> Proxy:
    block = read_block(Proxy, data, where)
    _check_bounds(block, _PROXY, where)
    check_choice(block.compares, PROXIES, f"{where}, compares")
    return block


def _check_bounds(block: object, bounds: Mapping[str, Mapping[str, Any]], where: str) -> None:
    for key, limits in bounds.items():
        check_number(getattr(block, key), f"{where}, {key}", **limits)
