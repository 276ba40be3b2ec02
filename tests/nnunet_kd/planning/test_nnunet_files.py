"""Plans and data sets of another form cost one line wherever a model folder is opened."""

import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.cli import main
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network
from nnunet_kd.planning.model_folder import open_model_folder, read_json, read_json_object

CONFIGURATION = ("configurations", "3d_fullres")
KWARGS = (*CONFIGURATION, "architecture", "arch_kwargs")
MISSING = object()


def spoil(file: Path, keys: tuple[str, ...], value: Any) -> None:
    content = json.loads(file.read_text())
    block = reduce(dict.__getitem__, keys[:-1], content)
    if value is MISSING:
        del block[keys[-1]]
    else:
        block[keys[-1]] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        *(((key,), MISSING) for key in ("dataset_name", "plans_name", "transpose_forward", "configurations")),
        *(((*CONFIGURATION, key), MISSING) for key in ("batch_size", "spacing", "patch_size", "architecture")),
        *(((*CONFIGURATION, key), None) for key in ("batch_size", "spacing", "architecture", "data_identifier")),
        (("configurations",), []),
        (CONFIGURATION, None),
        ((*CONFIGURATION, "inherits_from"), "3d_fullres"),
        ((*CONFIGURATION, "inherits_from"), "gone"),
        ((*CONFIGURATION, "patch_size"), [16, "x", 16]),
        ((*CONFIGURATION, "patch_size"), [0, 16, 16]),
        ((*CONFIGURATION, "spacing"), [1.0]),
        (KWARGS, None),
        ((*KWARGS, "strides"), [[1, 1], [2, 2]]),
        ((*KWARGS, "strides"), "x"),
        ((*KWARGS, "features_per_stage"), ["a"]),
        ((*KWARGS, "n_stages"), "3"),
    ],
)
def test_plans_of_another_form_are_refused_with_the_key(teacher: Path, keys: tuple[str, ...], value: Any) -> None:
    spoil(teacher / "plans.json", keys, value)
    with pytest.raises(UsageError, match=r"plans\.json"):
        open_model_folder(teacher)


@pytest.mark.parametrize("labels", [MISSING, None, [], {"a": None}, {"a": [[1]]}])
def test_a_data_set_without_labels_is_refused(teacher: Path, labels: Any) -> None:
    spoil(teacher / "dataset.json", ("labels",), labels)
    with pytest.raises(UsageError, match=r"dataset\.json.*label"):
        open_model_folder(teacher)


@pytest.mark.parametrize(("key", "value"), [("n_stages", 7), ("conv_op", "no.such.Conv"), ("unknown", 1)])
def test_a_network_that_its_plans_do_not_suit_costs_a_line(teacher: Path, key: str, value: Any) -> None:
    spoil(teacher / "plans.json", (*KWARGS, key), value)
    with pytest.raises(UsageError, match="cannot be built"):
        build_network(open_model_folder(teacher), deep_supervision=True)


def test_a_control_from_plans_of_another_form_costs_a_line(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(site.preprocessed / site.dataset / "nnUNetPlans.json", (*CONFIGURATION, "batch_size"), MISSING)
    assert main(["plan", "-d", "900", "-c", "3d_fullres", "--method", "none"]) == 2
    error = capsys.readouterr().err
    assert "batch_size: expected a whole number, got nothing" in error
    assert error.count("\n") == 1


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make", [_folder, _loop, *(lambda p, t=t: p.write_text(t) for t in ("", "{", "[" * 100_000, "\udcff"[:0] + "x"))]
)
def test_what_is_no_json_file_costs_a_line(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "plans.json")
    with pytest.raises(UsageError, match=r"cannot read .*plans\.json"):
        read_json(tmp_path / "plans.json")


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_json_that_is_no_object_costs_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(UsageError, match="expected a JSON object"):
        read_json_object(tmp_path / "plans.json")
