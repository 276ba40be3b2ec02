"""Claims about the plan of inference."""

import json
from typing import Any

import pytest

from nnunet_kd.deployment.inference import label_maps, normalisation, plan, readers, resampling
from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.errors import UsageError

LABELS = [
    ({"background": 0, "one": 1, "two": 2}, None),
    ({"background": 0, "one": 1, "three": 3, "ignore": 4}, None),
    ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edema": 1}, (1, 2, 3)),
    ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, (1, 2)),
]


@pytest.mark.parametrize(("labels", "regions"), LABELS, ids=["labels", "ignore", "regions", "regions-ignore"])
@pytest.mark.parametrize("cascade", [False, True], ids=["single", "cascade"])
def test_counts_as_nnunet_does(labels: Any, regions: Any, cascade: bool, make_model: Any) -> None:
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    model = make_model(labels, ("T1", "T2"), regions=regions, **({"previous_stage": "3d_lowres"} if cascade else {}))
    ours, manager = model.ours(), model.manager().get_label_manager(model.dataset_json)
    assert ours.n_outputs == manager.num_segmentation_heads
    assert ours.has_regions == manager.has_regions
    assert ours.ignore_label == manager.ignore_label
    assert list(ours.foreground_labels) == manager.foreground_labels
    assert ours.n_inputs == determine_num_input_channels(model.manager(), "3d_fullres", model.dataset_json)


@pytest.mark.parametrize(("labels", "regions"), LABELS, ids=["labels", "ignore", "regions", "regions-ignore"])
def test_survives_json(labels: Any, regions: Any, make_model: Any) -> None:
    ours = make_model(labels, transpose=(2, 0, 1), regions=regions, previous_stage="3d_lowres").ours((0, 2))
    assert InferencePlan.from_json(json.loads(json.dumps(ours.to_json()))) == ours


def test_resolves_inheritance_like_nnunet(make_model: Any) -> None:
    model = make_model(patch_size=[4, 4, 4])
    model.plans["configurations"]["grandchild"] = {"inherits_from": "3d_fullres", "spacing": [2, 2, 2]}
    ours = make_inference_plan(model.plans, model.dataset_json, "grandchild", None)
    theirs = model.manager().get_configuration("grandchild")
    assert (list(ours.patch_size), list(ours.spacing)) == (theirs.patch_size, theirs.spacing)
    assert list(ours.normalization_schemes) == theirs.normalization_schemes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalization_schemes": ["MyOwn"]}, "normalization_schemes.*MyOwn"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resampling_fn_data.*resample_torch_fornnunet"),
        ({"resampling_fn_data_kwargs": {"device": "cpu"}}, "unknown key 'device'"),
        ({"resampling_fn_seg_kwargs": {"order": 7}}, "order: expected one of"),
        ({"preprocessor_name": "MyOwn"}, "DefaultPreprocessor is known"),
        ({"inherits_from": "3d_fullres"}, "a circle"),
        ({"spacing": [1.0, 1.0]}, "2 or 3 axes"),
        ({"use_mask_for_norm": []}, "for each of 1 channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_refuses_what_it_does_not_know(changes: dict[str, Any], message: str, make_model: Any) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_model(**changes).ours()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(image_reader_writer="MyOwn"), "image_reader_writer.*MyOwn"),
        (lambda c: c.update(colour="red"), "unknown key 'colour'"),
        (lambda c: c.pop("labels"), "expected the key 'labels'"),
    ],
    ids=["reader", "unknown", "missing"],
)
def test_refuses_other_json(change: Any, message: str, make_model: Any) -> None:
    content = make_model().ours().to_json()
    change(content)
    with pytest.raises(UsageError, match=message):
        InferencePlan.from_json(content)


def test_regions_need_an_order(make_model: Any) -> None:
    with pytest.raises(UsageError, match="2 entries of regions_class_order"):
        make_model({"background": 0, "whole": [1, 2], "core": 2}, regions=(1,)).ours()


def test_knows_the_names_that_are_implemented() -> None:
    assert set(plan.NORMALIZATIONS) == set(normalisation.SCHEMES)
    assert set(plan.READERS) == set(readers.READ) == set(readers.WRITE)
    assert all(hasattr(module, "separate_axis") for module in (label_maps, resampling))
