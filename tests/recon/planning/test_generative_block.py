"""The block ``generative``: what it refuses, what plans write, and what follows from a trained baseline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.planning.baseline import parse_baseline
from nnunet_kd.recon.planning.generative_block import parse_generative
from nnunet_kd.recon.planning.networks import NETWORKS
from nnunet_kd.recon.planning.plans import build_network, read_plans


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"adverserial_weight": 1}, "did you mean 'adversarial_weight'"),
        ({"discriminator": {"chanels": 1}}, "discriminator: unknown key 'chanels' (did you mean 'channels'?)"),
        ({"proxy": {"compares": "grams"}}, "proxy, compares: expected one of gram, vector"),
        ({"freeze_baseline": True}, "name a trained one in 'baseline'"),
        ({"freeze_baseline": 1}, "freeze_baseline: expected true or false"),
        ({"baseline": 3}, "baseline: expected MODEL_FOLDER"),
        ({"adversarial_weight": -0.1}, "adversarial_weight: expected a number >= 0"),
        ({"warm_up": 2.5}, "warm_up (below 1 a share, else epochs): expected a whole number"),
        ({"warm_up": -1}, "warm_up: expected a number >= 0"),
        ({"r1_interval": 0}, "r1_interval: expected a whole number >= 1"),
        ({"ema": 1}, "ema: expected a number"),
        ({"n_samples": 1.5}, "n_samples: expected a whole number"),
        ({"discriminator": {"cutoff": 0}}, "discriminator, cutoff"),
        ({"discriminator": {"judges": "pixels"}}, "discriminator, judges"),
        ({"discriminator": {"game": "least_squares"}}, "discriminator, game"),
        ({"proxy": {"steps": 0}}, "proxy, steps"),
        ({"proxy": []}, "proxy: expected a JSON object, got list"),
    ],
)
def test_a_mistake_is_one_line(block: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_generative(block, "generative")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("warm_up", "share"), [(0, 0), (0.25, 0.25), (1, 0.1), (5, 0.5), (20, 1)])
def test_a_warm_up_is_a_share_or_epochs(warm_up: float, share: float) -> None:
    assert parse_generative({"warm_up": warm_up}, "generative").warm_up_share(10) == pytest.approx(share)


def test_a_fold_may_follow_the_folder() -> None:
    assert parse_baseline("a/b__c__d:all") == ("a/b__c__d", "all")
    assert parse_baseline("C:/a/b__c__d") == ("C:/a/b__c__d", None)


@pytest.mark.parametrize("network", ["texture_net", "stylish"])
def test_plans_of_a_generative_network_have_the_block_and_its_trainer(
    network: str, run: Callable[..., None], planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--mask", "equispaced", "--acceleration", "4", "8", "16", "32", "--channels", "4"]
    words += ["-p", "nnUNetReconSparsePlans"]
    run("plan", "-d", "1", "--network", network, *words)
    plans = read_plans(planned / "nnUNetReconSparsePlans.json")
    configuration = plans.configuration("2d")
    assert configuration.generative == parse_generative(NETWORKS[network].generative or {}, "generative")
    assert (configuration.training.initial_lr, configuration.training.lr_schedule) == (2e-4, "cosine")
    assert (plans.sampling or {})["acceleration"] == [4, 8, 16, 32]
    class_name = type(build_network(configuration)).__name__
    assert f"-tr {class_name}Trainer -p nnUNetReconSparsePlans" in capsys.readouterr().out


def test_plans_after_a_baseline_have_its_network_masks_and_scale(
    run: Callable[..., None], planned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "trained"
    monkeypatch.setenv("nnUNet_results", str(results))
    words = ("--mask", "equispaced", "--acceleration", "8", "16", "--normalisation", "percentile")
    run(
        "plan",
        "-d",
        "1",
        "--network",
        "adaptive_cs_net",
        "--blocks",
        "2",
        "--channels",
        "4",
        *words,
        "-p",
        "nnUNetBasePlans",
    )
    folder = results / planned.name / "AdaptiveCSNetTrainer__nnUNetBasePlans__2d"
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text((planned / "nnUNetBasePlans.json").read_text())
    named = f"{planned.name}/{folder.name}"
    run("plan", "-d", "1", "--network", "texture_net", "--baseline", named, "-p", "nnUNetTexturePlans")
    plans, base = (read_plans(planned / f"nnUNet{name}Plans.json") for name in ("Texture", "Base"))
    assert (plans.sampling, plans.normalisation) == (base.sampling, base.normalisation)
    assert list(plans.configurations) == ["2d"]
    network, trained = (build_network(found.configuration("2d")) for found in (plans, base))
    network.baseline.load_state_dict(trained.state_dict())  # type: ignore[union-attr,operator]
    block = plans.configuration("2d").generative
    assert block is not None
    assert (block.baseline, block.freeze_baseline) == (named, True)
    for words, message in (
        (("--network", "texture_net", "--channels", "8"), "leave --channels out"),
        (("--network", "stylish"), "type --network texture_net"),
        (("--network", "texture_net", "--baseline", f"{named}:3"), "expected fold 3 in"),
    ):
        with pytest.raises(UsageError, match=message):
            run("plan", "-d", "1", "--baseline", named, "-p", "nnUNetOtherPlans", *words)
    content = json.loads((folder / "plans.json").read_text())
    content["configurations"]["2d"]["architecture"]["network_class_name"] = "nnunet_kd.recon.networks.DCCNN"
    (folder / "plans.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="expected an AdaptiveCSNet"):
        run("plan", "-d", "1", "--network", "texture_net", "--baseline", named, "-p", "nnUNetOtherPlans")
