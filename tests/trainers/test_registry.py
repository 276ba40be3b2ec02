"""Checks that every trainer must pass, whoever adds it."""

import inspect
import os
import pickle

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunet_kd.trainers
from nnunet_kd import discovery
from nnunet_kd.distillation.trainer import DistillationTrainer

TRAINERS = pytest.mark.parametrize("name", nnunet_kd.trainers.__all__)


@TRAINERS
def test_nnunets_search_finds_the_same_picklable_class_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, "")  # undone after the test, unlike what register() sets
    discovery.register()
    assert os.environ[discovery.VARIABLE] == str(discovery.FOLDER)
    found = [recursive_find_trainer_class_by_name(name) for _ in range(2)]
    assert found[0] is found[1] is getattr(nnunet_kd.trainers, name)
    assert pickle.loads(pickle.dumps(found[0])) is found[0]


@TRAINERS
def test_the_constructor_is_nnunets_own(name: str) -> None:
    """nnU-Net reads its signature to store the arguments in checkpoints."""
    trainer = getattr(nnunet_kd.trainers, name)
    assert issubclass(trainer, DistillationTrainer)
    assert trainer.__init__ is nnUNetTrainer.__init__


@TRAINERS
def test_networks_are_built_by_a_static_method_with_the_name_nnunet_looks_for(name: str) -> None:
    trainer = getattr(nnunet_kd.trainers, name)
    assert isinstance(inspect.getattr_static(trainer, "build_network_architecture"), staticmethod)
    assert next(iter(inspect.signature(trainer.build_network_architecture).parameters)) == "plans_manager"


@TRAINERS
def test_names_can_be_split_from_a_folders_name_again(name: str) -> None:
    trainer = getattr(nnunet_kd.trainers, name)
    assert trainer.__name__ == name  # no aliases: folders go by the class
    assert "__" not in name
    assert trainer.__doc__
