"""Claims about reading and writing the kd block."""

from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import KDSettings, parse_settings, read_settings, settings_to_json


def block(**changes: Any) -> dict[str, Any]:
    return {
        "method": "kd",
        "seed": 3,
        "teachers": [{"model_folder": "D/T__P__c", "folds": [0, 1], "weight": 2.0, "sha256": {"0": "ab"}}],
        "teacher_outputs": "online",
        "supervision_weight": 1.0,
        "losses": [{"name": "logits_kl", "weight": 0.5, "temperature": 4.0, "schedule": "cosine"}],
        "budget": {"num_epochs": 5, "optimizer": "AdamW"},
        **changes,
    }


def test_what_is_written_is_read_back_unchanged() -> None:
    settings = parse_settings(block(), "here")
    assert parse_settings(settings_to_json(settings), "here") == settings
    assert settings.teachers[0].folds == (0, 1)
    assert settings.losses[0].options == {"temperature": 4.0}


def test_defaults_fill_what_is_left_out() -> None:
    assert parse_settings({}, "here") == KDSettings()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teecher": []}, r"unknown key 'teecher' \(did you mean 'teachers'\?\); known keys: method, seed"),
        (
            {"losses": [{"name": "logits_kk"}]},
            r"expected one of logits_kl, .*got 'logits_kk' \(did you mean 'logits_kl'",
        ),
        ({"losses": [{"name": "logits_kl", "temprature": 1}]}, "unknown key 'temprature'"),
        ({"losses": [{"name": "logits_kl", "temperature": 0}]}, "temperature: expected a number > 0, got 0"),
        ({"losses": [{"name": "logits_kl", "weight": -1}]}, "weight: expected a number >= 0, got -1"),
        ({"losses": [{"name": "logits_kl", "schedule": "step"}]}, "expected one of constant, warmup, ramp, cosine"),
        ({"losses": {}}, "losses: expected a list, got dict"),
        ({"teachers": []}, "losses without a teacher"),
        ({"teachers": [{"model_folder": "x", "folds": []}]}, "expected at least one fold"),
        ({"teachers": [{"model_folder": "x", "folds": "none"}]}, "expected one of same, all, got 'none'"),
        ({"teachers": [{"model_folder": "x", "folds": [-1]}]}, "expected a whole number >= 0, got -1"),
        ({"teachers": [{"folds": "same"}]}, "missing key 'model_folder'"),
        ({"teacher_outputs": "offline"}, "expected one of online, cached, got 'offline'"),
        ({"cache": {"mirroring": 1}}, "mirroring: expected true or false, got 1"),
        ({"cache": {"step_size": 0}}, "step_size: expected a number > 0 and <= 1, got 0"),
        ({"budget": {"num_epochs": 0}}, "num_epochs: expected a whole number >= 1, got 0"),
        ({"budget": {"num_epochs": True}}, "num_epochs: expected a whole number >= 1, got True"),
        ({"budget": {"initial_lr": float("nan")}}, "initial_lr: expected a number > 0 and <= 10.0, got nan"),
        ({"budget": {"optimizer": "adam"}}, "expected one of None, SGD, AdamW, Adam, AMSGrad, got 'adam'"),
        ({"seed": "x"}, "seed: expected a whole number >= 0 and <= 4294967295, got 'x'"),
        ({"seed": 2**70}, "seed: expected a whole number >= 0 and <= 4294967295"),
        ({"budget": {"initial_lr": 1e308}}, "initial_lr: expected a number > 0 and <= 10.0"),
        ({"budget": {"num_epochs": 10**400}}, "num_epochs: expected a whole number >= 1"),
        ({"losses": [{"name": "logits_kl", "temperature": 10**400}]}, "loss 0: "),
        ({"teachers": [{"model_folder": 3}]}, "teacher 0, model_folder: expected a folder's name, got 3"),
        ({"teachers": [{"model_folder": "x", "checkpoint": 5}]}, "checkpoint: expected a file's name or null, got 5"),
        ({"teachers": [{"model_folder": "x", "checkpoint": ""}]}, "checkpoint: expected a file's name or null, got ''"),
        ({"teachers": [{"model_folder": "x", "sha256": ["ab"]}]}, "sha256: expected an object"),
        ({"teachers": [{"model_folder": "x", "sha256": {"0": 5}}]}, "sha256: expected an object"),
        ({"precision": "fp16"}, "expected one of None, float32, bfloat16"),
        ({"supervision_weight": 0, "losses": []}, "nothing to learn from"),
    ],
)
def test_mistakes_are_named_with_place_and_cure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(block(**changes), "here")


def test_plans_without_a_block_have_no_settings() -> None:
    assert read_settings({"plans_name": "nnUNetPlans"}, "2d") is None


def test_a_configuration_that_was_not_planned_is_refused_with_the_command() -> None:
    plans = {"plans_name": "nnUNetKDPlans", "kd": {"version": 1, "configurations": {"2d": {}}}}
    with pytest.raises(UsageError, match=r"distil 2d, not '3d_fullres'; add it with: nnunet_kd plan .* -c 3d_fullres"):
        read_settings(plans, "3d_fullres")


@pytest.mark.parametrize("kd", [None, [], "x", {"version": 1, "configurations": None}])
def test_a_block_of_another_kind_is_refused(kd: Any) -> None:
    with pytest.raises(UsageError, match=r"kd block.*expected a"):
        read_settings({"kd": kd}, "2d")


def test_another_version_is_refused() -> None:
    with pytest.raises(UsageError, match="expected version 1, got 2"):
        read_settings({"kd": {"version": 2, "configurations": {}}}, "2d")
