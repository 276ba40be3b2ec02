"""Claims about trainings with hierarchical pairs, in 3-D with nnU-Net's own networks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd.planning.presets import PRESETS

Make = Callable[..., Any]
Plan = Callable[..., int]

OF_HLFD = [name for name, preset in PRESETS.items() if preset.trainer == "HLFDTrainer"]


@pytest.mark.parametrize("method", OF_HLFD)
def test_every_branch_trains_by_changing_one_word(plan: Plan, make_trainer: Make, of: Any, method: str) -> None:
    assert plan("--method", method, "--seed", "5") == 0
    trainer = of.started(make_trainer(trainer="HLFDTrainer"))
    before = of.weights(trainer), {n: p.clone() for n, p in trainer.features.adapters.state_dict().items()}
    result = trainer.train_step(next(trainer.dataloader_train))
    parts = {name.removeprefix("kd_"): value for name, value in result.items() if name.startswith("kd_")}
    assert set(parts) == {"supervision", *trainer.objective.names}
    assert all(0 <= value < 100 for value in parts.values())
    factors = {term.name: term.weight for term in trainer.objective.terms}
    total = parts.pop("supervision") + sum(factors[name] * value for name, value in parts.items())
    assert float(result["loss"]) == pytest.approx(total, rel=1e-4)
    assert of.largest_difference(before[0], of.weights(trainer)) > 0
    after = trainer.features.adapters.state_dict()
    assert all(not torch.equal(value, after[name]) for name, value in before[1].items())


@pytest.mark.parametrize("learned", [[], ['feature_kl:pairs=[["decoder[1:]","output"]]']], ids=["redrawn", "learned"])
def test_resumed_equals_uninterrupted_with_a_hierarchy(
    learned: list[str], plan: Plan, make_trainer: Make, of: Any
) -> None:
    plan(
        "--losses",
        *learned,
        'feature_kl:pairs=[["decoder[0]","decoder[:]"]],onto=student,projector=random_per_step',
        *("--seed", "5", "--epochs", "3"),
    )
    whole = make_trainer()
    whole.run_training()
    modules = ("adapters", "fixed")
    expected = [of.weights(whole), *(dict(getattr(whole.features, name).state_dict()) for name in modules)]
    (redrawn,) = whole.features.fixed.values()
    assert int(redrawn.n_calls) == 3 * 2  # steps, validation has none
    shutil.rmtree(whole.output_folder)

    of.interrupted(make_trainer())
    second = make_trainer(continue_training=True)
    second.load_checkpoint(str(Path(second.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    ours = [of.weights(second), *(dict(getattr(second.features, name).state_dict()) for name in modules)]
    for one, other in zip(expected, ours, strict=True):
        assert one.keys() == other.keys()
        assert not one or of.largest_difference(one, other) < 1e-6


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ('[["encoder[5]","encoder[-1]"]]', "attention_transfer: encoder[5]: the student has encoder[0] to encoder["),
        ('[["encoder[0]",["decoder[9]"]]]', "attention_transfer: decoder[9]: the teacher has decoder[0] to decoder["),
        ('[["encoder[x]","encoder[-1]"]]', "plan, loss 0: pairs: expected a stage as encoder[0], "),
        ('[["encoder[0]","decoder"]]', "'decoder' returns list"),
        ('[["encoder[0]",[]]]', "plan, loss 0: pairs: expected a selector or a list of them on each side"),
    ],
)
def test_wrong_selectors_are_refused_when_planned(
    plan: Plan, site: Any, capsys: pytest.CaptureFixture[str], pairs: str, message: str
) -> None:
    assert plan("--losses", f"attention_transfer:pairs={pairs}") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (site.preprocessed / site.dataset / "nnUNetKDPlans.json").exists()


def test_the_log_names_every_pair(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--method", "hlfd_concatenated")
    trainer = of.started(make_trainer())
    line = "encoder.stages.0 + encoder.stages.1 - encoder.stages.2"
    assert line in of.log(trainer)
    assert "decoder.stages.0 + decoder.stages.1 - output" in of.log(trainer)
