"""Claims about soft labels on disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.distillation import soft_labels
from nnunet_kd.distillation.cached_data import probabilities_at
from nnunet_kd.distillation.soft_labels import ImageFacts
from nnunet_kd.errors import UsageError
from nnunet_kd.losses import logits_kl
from nnunet_kd.planning.kd_block import CacheSettings, KDSettings, TeacherSource

PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_X",
    "plans_name": "nnUNetKDPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "3d_fullres": {
            "architecture": {},
            "data_identifier": "nnUNetPlans_3d_fullres",
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
        }
    },
}
LABELS = {"labels": {"background": 0, "a": 1}}
IMAGE = ImageFacts(shape=(6, 7, 8), n_bytes=1000)


def settings(**changes: Any) -> KDSettings:
    source = TeacherSource(model_folder="D/T__P__c", sha256={"0": "aa", "1": "bb"})
    return KDSettings(**{"teachers": (source,), "teacher_outputs": "cached", **changes})


def recipe(
    kd: KDSettings, temperature: float = 2.0, fold: int | str = 0, plans: dict[str, Any] = PLANS
) -> dict[str, Any]:
    return soft_labels.recipe(kd, temperature, fold, plans=plans, configuration="3d_fullres", dataset_json=LABELS)


def changed(**changes: Any) -> dict[str, Any]:
    planned = {**PLANS["configurations"]["3d_fullres"], **changes}
    return {**PLANS, "configurations": {"3d_fullres": planned}}


SOURCE = settings().teachers[0]


@pytest.mark.parametrize(
    "other",
    [
        recipe(settings(), temperature=4.0),
        recipe(settings(), fold=1),
        recipe(settings(cache=CacheSettings(mirroring=False))),
        recipe(settings(cache=CacheSettings(step_size=0.25))),
        recipe(settings(teachers=(SOURCE, SOURCE))),
        recipe(settings(), plans=changed(spacing=[1.0, 1.0, 2.0])),
        recipe(
            settings(),
            plans=changed(normalization_schemes=["CTNormalization"])
            | {"foreground_intensity_properties_per_channel": {}},
        ),
        recipe(settings(), plans=PLANS | {"transpose_forward": [1, 0, 2]}),
    ],
)
def test_whatever_changes_the_values_changes_the_hash(other: dict[str, Any]) -> None:
    assert soft_labels.key(other) != soft_labels.key(recipe(settings()))
    assert soft_labels.differences(recipe(settings()), other)


@pytest.mark.parametrize(
    "same",
    [
        recipe(settings(supervision_weight=0.5, method="other")),
        recipe(settings(teachers=(TeacherSource(model_folder="moved", sha256=SOURCE.sha256, weight=3.0),))),
        recipe(settings(), temperature=2),
        recipe(settings(), plans=PLANS | {"plans_name": "nnUNetKDS1Plans"}),
        recipe(settings(), plans=changed(patch_size=[8, 8, 8], batch_size=7)),
    ],
)
def test_what_does_not_change_the_values_keeps_the_hash(same: dict[str, Any]) -> None:
    """So that students of several methods, seeds and sizes share a cache."""
    assert soft_labels.key(same) == soft_labels.key(recipe(settings()))


def test_students_of_a_cascade_share_no_cache_with_other_plans() -> None:
    """Their teacher is shown the segmentations of the student's own first stage."""
    cascade = changed(previous_stage="3d_lowres")
    assert recipe(settings(), plans=cascade) != recipe(settings(), plans=cascade | {"plans_name": "otherPlans"})


def test_ensembles_of_all_folds_share_one_cache_and_keep_the_members_that_were_recorded() -> None:
    ensemble = settings(teachers=(TeacherSource(model_folder="x", folds="all", sha256={"1": "bb", "0": "aa"}),))
    assert recipe(ensemble, fold=0) == recipe(ensemble, fold=3)
    assert [member["checkpoint sha256"] for member in recipe(ensemble)["teachers"]] == ["aa", "bb"]
    assert soft_labels.cache_folder(Path("d"), ensemble, 3, recipe(ensemble)).parent.name == soft_labels.FOLDER
    assert soft_labels.cache_folder(Path("d"), settings(), 3, recipe(settings())).name == "fold_3"


def test_a_checkpoint_that_the_plans_do_not_record_is_named() -> None:
    with pytest.raises(UsageError, match="do not record the checkpoint of teacher D/T__P__c, fold 4"):
        recipe(settings(), fold=4)


def write(folder: Path, case: str, seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).integers(0, 256, (2, *IMAGE.shape), dtype=np.uint8)
    soft_labels.write_case(folder, case, values, IMAGE, patch_size=(4, 4, 4))
    return values


def test_what_is_written_is_read_back_with_its_checksum_in_the_manifest(tmp_path: Path) -> None:
    soft_labels.begin(tmp_path, recipe(settings()), ["teacher"])
    values = write(tmp_path, "one")
    soft_labels.finish(tmp_path)
    assert np.array_equal(soft_labels.open_case(tmp_path, "one")[:], values)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "one.b2nd"]
    assert soft_labels.read_records(tmp_path)["one"]["shape"] == [2, 6, 7, 8]
    assert soft_labels.faults(tmp_path, {"one": IMAGE}) == {}


def test_missing_damaged_and_stale_cases_are_told_apart(tmp_path: Path) -> None:
    soft_labels.begin(tmp_path, recipe(settings()), [])
    for case in ("good", "damaged", "stale", "lost", "resized"):
        write(tmp_path, case)
    soft_labels.finish(tmp_path)
    (tmp_path / "lost.b2nd").unlink()
    content = bytearray((tmp_path / "damaged.b2nd").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.b2nd").write_bytes(content)
    images = dict.fromkeys(("good", "damaged", "lost", "new"), IMAGE)
    images["stale"] = ImageFacts(shape=IMAGE.shape, n_bytes=1001)
    images["resized"] = ImageFacts(shape=(6, 7, 9), n_bytes=1000)
    assert soft_labels.faults(tmp_path, images) == {
        "damaged": "damaged",
        "lost": "missing",
        "new": "missing",
        "stale": "of another image",
        "resized": "of another image",
    }


def test_cases_finished_before_a_run_was_killed_count(tmp_path: Path) -> None:
    soft_labels.begin(tmp_path, recipe(settings()), [])
    write(tmp_path, "one")
    soft_labels.begin(tmp_path, recipe(settings()), [])  # the next run, after a kill
    write(tmp_path, "two")
    soft_labels.finish(tmp_path)
    assert soft_labels.faults(tmp_path, {"one": IMAGE, "two": IMAGE}) == {}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(soft_labels, "file_sha256", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, "one")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_rounding_moves_no_value_by_more_than_half_a_level() -> None:
    values = np.random.default_rng(0).random(10000, dtype=np.float32)
    error = np.abs(soft_labels.quantise(values) / 255 - values)
    assert float(error.max()) <= 0.5 / 255 + 1e-6


def test_rounding_changes_the_distillation_loss_by_less_than_a_percent() -> None:
    """On logits as confident as a trained network's: most voxels near certainty, borders not."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (4 * torch.randn(2, 3, 16, 16, 16, generator=generator) for _ in range(2))
    exact = torch.softmax(teacher / 2, dim=1)
    stored = torch.from_numpy(soft_labels.quantise(exact[:, 1:].numpy())) / 255
    (rounded,) = probabilities_at(stored, [(16, 16, 16)], regions=False)
    assert rounded is not None
    before, after = (float(logits_kl(student, p, temperature=2.0)) for p in (exact, rounded))
    assert abs(after - before) < 0.01 * before
