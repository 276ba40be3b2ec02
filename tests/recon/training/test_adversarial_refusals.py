"""What cannot be trained against a discriminator: one line, and nothing written."""

from collections.abc import Callable
from typing import Any

import pytest

Planned = Callable[..., dict[str, Any]]
NETWORKS: dict[str, dict[str, Any]] = {
    "TextureNet": {"blocks": 1, "channels": 4, "scales": 2, "tokens": 2, "token_channels": 4, "texture_channels": 4},
    "Stylish": {"channels": 4, "pools": 2, "style_channels": 4, "encoder_channels": 2},
}
SMALL: dict[str, Any] = {"discriminator": {"channels": 4, "layers": 2}, "proxy": {"weight": 0}}
ABSENT = "Dataset950_Discs/AdaptiveCSNetTrainer__nnUNetReconPlans__2d"


@pytest.mark.parametrize(
    ("trainer", "network", "block", "message"),
    [
        ("ReconTrainer", "TextureNet", SMALL, "type -tr TextureNetTrainer"),
        ("DistilledTrainer", "TextureNet", SMALL, "have none; type: nnunet_kd recon plan"),
        ("StylishTrainer", "TextureNet", SMALL, "type -tr TextureNetTrainer"),
        ("TextureNetTrainer", "TextureNet", None, "have none; plan again with --network"),
        ("TextureNetTrainer", "TextureNet", {**SMALL, "warmup": 1}, "did you mean 'warm_up'"),
        ("TextureNetTrainer", "TextureNet", {"proxy": {"compares": "vector"}}, "this network expects 'gram'"),
        ("StylishTrainer", "Stylish", {"proxy": {"compares": "gram"}}, "this network expects 'vector'"),
        ("StylishTrainer", "Stylish", {**SMALL, "baseline": ABSENT}, "starts from none"),
        ("TextureNetTrainer", "TextureNet", {**SMALL, "baseline": ABSENT}, "no model folder"),
        ("TextureNetTrainer", "TextureNet", {**SMALL, "discriminator": {"resolutions": 4}}, "type a smaller number"),
    ],
)
def test_one_line(
    site: Any,
    planned: Planned,
    capsys: pytest.CaptureFixture[str],
    trainer: str,
    network: str,
    block: dict[str, Any] | None,
    message: str,
) -> None:
    name = f"nnunet_kd.recon.networks.{network}"
    content = planned("nnUNetReconPlans", architecture={"network_class_name": name, "arch_kwargs": NETWORKS[network]})
    content["configurations"]["2d"]["generative"] = block
    assert site.train(trainer, content) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not site.fold(trainer, "nnUNetReconPlans").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 8}, "of another size"),
        ({"priors": ["phase"]}, "other priors"),
        ({"normalisation": {"scheme": "percentile"}}, "has normalisation"),
    ],
    ids=["size", "priors", "scale"],
)
def test_a_baseline_must_fit(
    site: Any, planned: Planned, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    sizes = {key: NETWORKS["TextureNet"][key] for key in ("blocks", "channels", "scales")}
    base = {"network_class_name": "nnunet_kd.recon.networks.AdaptiveCSNet", "arch_kwargs": sizes}
    assert site.train("AdaptiveCSNetTrainer", planned("nnUNetReconPlans", architecture=base, num_epochs=1)) == 0
    scale = change.pop("normalisation", None)
    texture = {
        "network_class_name": "nnunet_kd.recon.networks.TextureNet",
        "arch_kwargs": {**NETWORKS["TextureNet"], **change},
    }
    content = planned("nnUNetReconTexturePlans", architecture=texture)
    content["configurations"]["2d"]["generative"] = {**SMALL, "baseline": ABSENT, "freeze_baseline": True}
    if scale is not None:
        content["normalisation"] = scale
    assert site.train("TextureNetTrainer", content) == 2
    assert message in capsys.readouterr().err
    assert not site.fold("TextureNetTrainer", "nnUNetReconTexturePlans").exists()
