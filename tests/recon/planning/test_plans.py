import json
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.planning.plans import (
    Architecture,
    Configuration,
    ReconPlans,
    Training,
    build_network,
    parse_plans,
)


def _plans(**changes: Any) -> ReconPlans:
    architecture = Architecture(network_class_name="torch.nn.Conv2d", arch_kwargs={"in_channels": 1})
    configuration = Configuration(data_identifier="data", batch_size=2, architecture=architecture, crop=(4, 5))
    settings = {
        "dataset_name": "Dataset001_Knee",
        "plans_name": "nnUNetReconPlans",
        "task": "reconstruction",
        "acquisition": "multi_coil",
        "configurations": {"2d": configuration},
        "coils": (8, 15),
        "matrices": ((640, 368),),
        "sampling": {"mask": "random"},
    }
    return ReconPlans(**{**settings, **changes})


def test_plans_survive_json() -> None:
    plans = _plans()
    assert parse_plans(json.loads(json.dumps(plans.to_json())), "file") == plans


def _set(data: Any, path: Any, value: Any) -> None:
    *parents, last = path
    for parent in parents:
        data = data[parent]
    data[last] = value


TWO_D = ("configurations", "2d")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("tasks",), 1, "unknown key 'tasks'.*did you mean 'task'"),
        (("task",), "segmentation", "task: expected one of reconstruction"),
        (("sampling",), None, "needs an object 'sampling'"),
        (("coils",), [0], "coils: expected a whole number >= 1"),
        (("matrices",), [[1, 2, 3]], r"matrices: expected \[height, width\]"),
        (("normalisation", "scheme"), "target", "normalisation, scheme: expected one of max"),
        ((*TWO_D, "batch_size"), 0, "2d, batch_size: expected a whole number >= 1"),
        ((*TWO_D, "loss"), {"name": "l1", "shares": 1}, "2d, loss: unknown key 'shares'"),
        ((*TWO_D, "training", "initial_lr"), float("nan"), "initial_lr: expected a number > 0"),
        ((*TWO_D, "training", "schedule"), "both", "schedule: expected one of joint, staged"),
        ((*TWO_D, "architecture", "network_class_name"), "DCCNN", "expected module.Class"),
        ((*TWO_D, "metrics"), 5, "metrics: expected a list of names"),
        ((*TWO_D, "metrics"), [], "metrics: expected a list of names"),
        ((*TWO_D, "data_identifier"), 5, "data_identifier: expected a name"),
        ((*TWO_D, "data_identifier"), "../elsewhere", "data_identifier: expected a name without slashes"),
        (("plans_name",), "../../elsewhere", "plans_name: expected a name without slashes"),
        (("configurations",), {}, "configurations: expected an object with at least one"),
    ],
)
def test_wrong_plans_are_refused_with_their_place(path: Any, value: Any, message: str) -> None:
    data = json.loads(json.dumps(_plans().to_json()))
    _set(data, path, value)
    with pytest.raises(UsageError, match=message) as error:
        parse_plans(data, "plans.json")
    assert str(error.value).startswith("plans.json")
    assert "\n" not in str(error.value)


def test_missing_configuration_names_the_others() -> None:
    with pytest.raises(UsageError, match="no configuration '3d'; they have: 2d"):
        _plans().configuration("3d")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.Network", "cannot find the network"),
        ("json.dumps", "to be a torch.nn.Module"),
        ("torch.nn.Conv2d", "Conv2d: .*arch_kwargs"),
        ("..relative.Network", "cannot find the network"),
    ],
)
def test_network_that_cannot_be_built(name: str, message: str) -> None:
    configuration = Configuration(data_identifier="", batch_size=1, architecture=Architecture(network_class_name=name))
    with pytest.raises(UsageError, match=message):
        build_network(configuration)


@pytest.mark.parametrize("size", [-1, 2**45, 2**70])
def test_absurd_sizes_are_one_line(size: int) -> None:
    architecture = Architecture(
        network_class_name="torch.nn.Linear", arch_kwargs={"in_features": size, "out_features": 9}
    )
    with pytest.raises(UsageError, match=r"Linear: .*arch_kwargs"):
        build_network(Configuration(data_identifier="", batch_size=1, architecture=architecture))


@pytest.mark.parametrize(("schedule", "epochs"), [("joint", 0), ("staged", 150)])
def test_first_stage_is_half_of_a_staged_run(schedule: str, epochs: int) -> None:
    assert Training(num_epochs=300, schedule=schedule).first_stage_epochs == epochs
