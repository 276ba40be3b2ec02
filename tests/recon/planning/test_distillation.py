import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.errors import UsageError
from nnunet_kd.recon.planning.distillation import LOSSES, METHODS, student_plans_name
from nnunet_kd.recon.planning.networks import n_parameters
from nnunet_kd.recon.planning.overview import trainer_name
from nnunet_kd.recon.planning.plans import ReconPlans, read_plans

Run = Callable[..., None]


@pytest.fixture
def plan(run: Run, teacher: Path, planned: Path) -> Callable[..., ReconPlans]:
    """Plan a student of the teacher and read what was written."""

    def plan_student(*words: str, name: str = "nnUNetReconKDPlans") -> ReconPlans:
        run("plan", "-d", "1", "--teacher", f"{teacher.parent.name}/{teacher.name}", *words)
        return read_plans(planned / f"{name}.json")

    return plan_student


def test_student_is_the_published_one_on_its_teachers_data(plan: Callable[..., ReconPlans], teacher: Path) -> None:
    plans = plan()
    student, base = plans.configuration("2d"), read_plans(teacher / "plans.json").configuration("2d")
    assert student.architecture.arch_kwargs == {**base.architecture.arch_kwargs, "convs": 3}
    assert student.data_identifier == base.data_identifier
    assert (student.training.schedule, student.training.num_epochs) == ("staged", base.training.num_epochs)
    settings = plans.distillation("2d")
    assert [term.name for term in settings.losses] == ["attention_transfer", "imitation"]
    (source,) = settings.teachers
    assert source.model_folder == f"Dataset001_Single/{teacher.name}"
    assert dict(source.sha256) == {"0": file_sha256(teacher / "fold_0" / "checkpoint_final.pth")}
    assert trainer_name(plans, "2d") == "DCCNNKDTrainer"


@pytest.mark.parametrize("method", [name for name in METHODS if name != "sft"])
def test_every_method_can_be_planned(plan: Callable[..., ReconPlans], method: str) -> None:
    plans = plan("--method", method, "--seed", "1", name=student_plans_name(method, 1, published=False))
    settings = plans.distillation("2d")
    assert settings.losses == LOSSES[method]
    assert (settings.method, settings.seed, plans.configuration("2d").training.seed) == (method, 1, 1)
    assert bool(settings.teachers) == (method != "none")


def test_published_student_has_the_released_codes_losses(plan: Callable[..., ReconPlans]) -> None:
    plans = plan("--published", "--epochs", "20", "--convs", "3", name="nnUNetReconKDPublishedPlans")
    attention, imitation = plans.distillation("2d").losses
    assert attention.options == {"normalisation": "batch", "distance": "l1"}
    assert imitation.options == {"published_scale": True}
    assert plans.configuration("2d").training.num_epochs == 20


def test_published_student_is_trained_as_long_in_each_stage(plan: Callable[..., ReconPlans]) -> None:
    training = plan("--published", name="nnUNetReconKDPublishedPlans").configuration("2d").training
    assert (training.num_epochs, training.first_stage_epochs) == (300, 150)


def test_random_teacher_has_no_checkpoint(plan: Callable[..., ReconPlans]) -> None:
    (source,) = plan("--random-teacher", name="nnUNetReconKDRandomPlans").distillation("2d").teachers
    assert (source.checkpoint, dict(source.sha256)) == (None, {})


def test_terms_of_ones_own(plan: Callable[..., ReconPlans]) -> None:
    plans = plan("--losses", "imitation:weight=0.3,norm=l2", "--schedule", "joint")
    (term,) = plans.distillation("2d").losses
    assert (term.weight, term.options) == (0.3, {"norm": "l2"})
    assert plans.distillation("2d").method == "custom"


def test_student_friendly_teacher_names_its_student(run: Run, planned: Path) -> None:
    run("plan", "-d", "1", "--method", "sft")
    configuration = read_plans(planned / "nnUNetReconKDSftPlans.json").configuration("2d")
    assert configuration.architecture.arch_kwargs["convs"] == 5
    assert configuration.student_branches.arch_kwargs["convs"] == 3
    assert n_parameters(configuration.student_branches) < n_parameters(configuration.architecture)


def _other_scale(teacher: Path) -> str:
    other = teacher.with_name("DCCNNTrainer__OtherPlans__2d")
    shutil.copytree(teacher, other)
    text = (other / "plans.json").read_text()
    (other / "plans.json").write_text(text.replace('"scheme": "max"', '"scheme": "percentile"'))
    return str(other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "3"], "expected fold 3 in .*found folds: 0"),
        (["-chk", "checkpoint_best.pth"], "expected a trained fold with checkpoint_best.pth"),
        (["--method", "sft"], "--method sft plans a teacher"),
        (["--acceleration", "8"], "a student sees its teacher's data"),
        (["--losses", "imitations"], "did you mean 'imitation'"),
        (["--losses", "imitation", "--method", "kd_mri"], "exclude each other"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    plan: Callable[..., ReconPlans], planned: Path, words: list[str], message: str
) -> None:
    before = sorted(planned.iterdir())
    with pytest.raises(UsageError, match=message) as error:
        plan(*words)
    assert "\n" not in str(error.value)
    assert sorted(planned.iterdir()) == before


def test_teachers_of_other_data_make_no_ensemble(run: Run, teacher: Path) -> None:
    with pytest.raises(UsageError, match="differ in normalisation"):
        run("plan", "-d", "1", "--teacher", str(teacher), _other_scale(teacher))


def test_student_is_planned_anew_only_when_asked(plan: Callable[..., ReconPlans]) -> None:
    plan()
    with pytest.raises(UsageError, match="has 2d already; type --overwrite"):
        plan()
    assert plan("--overwrite", "--channels", "8").configuration("2d").architecture.arch_kwargs["channels"] == 8


def test_next_configuration_joins_the_same_plans(run: Run, plan: Callable[..., ReconPlans], teacher: Path) -> None:
    plan()
    neighbours = teacher.with_name(teacher.name.replace("2d", "2d_neighbours"))
    shutil.copytree(teacher, neighbours)
    run("plan", "-d", "1", "--teacher", str(neighbours))
    plans: Any = read_plans(teacher.parents[2] / "preprocessed" / "Dataset001_Single" / "nnUNetReconKDPlans.json")
    assert set(plans.configurations) == set(plans.kd["configurations"]) == {"2d", "2d_neighbours"}
    assert plans.configuration("2d_neighbours").architecture.arch_kwargs["n_context"] == 2
