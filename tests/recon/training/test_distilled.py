"""Students and their teachers: what is compared, when, and what is refused."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.recon.training.run import find_run
from nnunet_kd.recon.training.trainers import find_trainer

Planned = Callable[..., dict[str, Any]]
TEACHER = "Dataset950_Discs/DCCNNTrainer__nnUNetReconPlans__2d"
STUDENT = {
    "network_class_name": "nnunet_kd.recon.networks.DCCNN",
    "arch_kwargs": {"cascades": 2, "convs": 2, "channels": 8},
}
KD_MRI = [{"name": "attention_transfer"}, {"name": "imitation"}]


def teachers(**changes: Any) -> list[dict[str, Any]]:
    return [{"model_folder": TEACHER, **changes}]


def student_plans(planned: Planned, losses: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    kd = {"teachers": teachers(), "losses": losses, **changes.pop("kd", {})}
    return planned("nnUNetReconKDPlans", architecture=deepcopy(STUDENT), kd=kd, **changes)


def final(site: Any) -> dict[str, Any]:
    path = site.fold("DCCNNKDTrainer", "nnUNetReconKDPlans") / "checkpoint_final.pth"
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def test_joint_and_staged_learn_from_what_they_say(taught: Any, planned: Planned) -> None:
    assert taught.train("DCCNNKDTrainer", student_plans(planned, KD_MRI)) == 0
    joint = final(taught)
    parts = {name for name in joint["logging"] if name.startswith("part_")}
    assert parts == {"part_supervision", "part_attention_transfer", "part_imitation"}
    assert joint["kd"]["teachers"][TEACHER]["0"]
    assert not [name for name in joint["network_weights"] if "teacher" in name]
    assert taught.train("DCCNNKDTrainer", student_plans(planned, KD_MRI, schedule="staged", num_epochs=4)) == 0
    log = final(taught)["logging"]
    counted = {name: np.isfinite(row).tolist() for name, row in log.items() if name.startswith("part_")}
    assert counted["part_attention_transfer"] == [True, True, False, False]
    assert counted["part_supervision"] == counted["part_imitation"] == [False, False, True, True]
    assert log["lr"][0] == log["lr"][2] == 0.003
    assert log["train_loss"][1] < log["train_loss"][0]
    texts = [path.read_text() for path in taught.fold("DCCNNKDTrainer", "nnUNetReconKDPlans").glob("training_log_*")]
    assert not [text for text in texts if "nan" in text]


def test_the_control_is_the_plain_trainer(taught: Any, planned: Planned) -> None:
    taught.train("DCCNNKDTrainer", student_plans(planned, [], kd={"teachers": []}))
    taught.train("DCCNNTrainer", planned("nnUNetReconAlonePlans", architecture=STUDENT))
    path = taught.fold("DCCNNTrainer", "nnUNetReconAlonePlans") / "checkpoint_final.pth"
    for key, weights in torch.load(path, weights_only=True)["network_weights"].items():
        assert torch.equal(weights, final(taught)["network_weights"][key])


def test_adapters_and_optimiser_continue_exactly(
    taught: Any,
    planned: Planned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = {**STUDENT, "arch_kwargs": {"cascades": 2, "convs": 2, "channels": 4}}
    content = student_plans(planned, [{"name": "fitnet"}, {"name": "imitation"}])
    content["configurations"]["2d"] |= {"architecture": wide}
    taught.train("DCCNNKDTrainer", content)
    whole = final(taught)
    assert whole["kd"]["adapters"]["weights"]
    assert not [name for name in whole["network_weights"] if "fitnet" in name]
    content["plans_name"] = "nnUNetReconKDAgainPlans"

    with monkeypatch.context() as context:
        context.setattr("nnunet_kd.recon.training.loop.Loop._plot", interrupt)
        with pytest.raises(KeyboardInterrupt):
            taught.train("DCCNNKDTrainer", content)
    assert taught.train("DCCNNKDTrainer", content, "--c") == 0
    path = taught.fold("DCCNNKDTrainer", "nnUNetReconKDAgainPlans") / "checkpoint_final.pth"
    resumed = torch.load(path, weights_only=True)
    for key, weights in {**whole["network_weights"], **whole["kd"]["adapters"]["weights"]}.items():
        assert torch.equal(weights, {**resumed["network_weights"], **resumed["kd"]["adapters"]["weights"]}[key])


def interrupt(loop: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": [{"name": "logits_kl"}]}, "compares classes"),
        ({"losses": [{"name": "ifvd"}]}, "compares classes"),
        ({"teachers": [{"model_folder": "Dataset950_Discs/No__Such__2d"}]}, "no model folder"),
        ({"teachers": [{"model_folder": TEACHER, "folds": [3]}]}, "expected fold 3"),
        ({"teachers": [{"model_folder": TEACHER, "checkpoint": "x.pth"}]}, "found checkpoints: checkpoint_best.pth"),
        ({"teachers": [{"model_folder": TEACHER, "sha256": {"0": "00"}}]}, "changed since it was planned"),
        ({"losses": [{"name": "fitnet", "pairs": [["cascades.0.9", "cascades.0.1"]]}]}, "no module 'cascades.0.9'"),
        ({"losses": [{"name": "fitnet", "pairs": "bottleneck"}]}, "no such parts"),
        ({"teacher_outputs": "cached", "losses": []}, "expected 'online'"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(
    taught: Any,
    planned: Planned,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    words: str,
) -> None:
    capsys.readouterr()
    assert taught.train("DCCNNKDTrainer", student_plans(planned, KD_MRI, kd=changes)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not taught.fold("DCCNNKDTrainer", "nnUNetReconKDPlans").exists()


def test_unequal_cascades_are_not_paired_silently(
    taught: Any,
    planned: Planned,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = student_plans(planned, KD_MRI)
    content["configurations"]["2d"]["architecture"]["arch_kwargs"] = {"cascades": 3, "convs": 2, "channels": 4}
    assert taught.train("DCCNNKDTrainer", content) == 2
    assert "3 middle layers, the teacher 2" in capsys.readouterr().err


def test_a_teacher_of_another_scale_is_refused(
    taught: Any,
    planned: Planned,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = {**student_plans(planned, KD_MRI), "normalisation": {"scheme": "percentile"}}
    assert taught.train("DCCNNKDTrainer", content) == 2
    assert "has normalisation" in capsys.readouterr().err


def prepared(site: Any, content: dict[str, Any]) -> Any:
    from nnunet_kd.recon.training.loop import Loop

    site.write(content)
    run = find_run("950", "2d", "0", "DCCNNKDTrainer", "nnUNetReconKDPlans")
    trainer = find_trainer("DCCNNKDTrainer")(run, torch.device("cpu"))
    sample = Loop(trainer)._first_batch()
    trainer.prepare(sample)
    return trainer, sample


def test_random_teachers_are_the_same_each_time_and_never_the_student(taught: Any, planned: Planned) -> None:
    content = student_plans(planned, KD_MRI, kd={"teachers": teachers(checkpoint=None)})
    content["configurations"]["2d"]["architecture"]["arch_kwargs"]["convs"] = 3  # as the teacher
    (first, sample), (second, _) = (prepared(taught, content) for _ in range(2))
    image = first.teachers.guide(sample.acquisition).image
    assert torch.equal(image, second.teachers.guide(sample.acquisition).image)
    assert not torch.equal(image, first.network(sample.acquisition))
    assert not any(weights.requires_grad for weights in first.teachers.members[0].network.parameters())


def test_an_ensemble_s_image_is_its_members_mean(taught: Any, planned: Planned) -> None:
    taught.train("DCCNNTrainer", planned("nnUNetReconPlans", seed=9), fold="all")
    both = student_plans(planned, KD_MRI, kd={"teachers": teachers(folds=[0, "all"])})
    trainer, sample = prepared(taught, both)
    expected = sum(member.network(sample.acquisition) for member in trainer.teachers.members) / 2
    assert torch.allclose(trainer.teachers.guide(sample.acquisition).image, expected)
    assert [member.share for member in trainer.teachers.members] == [0.5, 0.5]
