"""Claims about ``nnunet_kd pseudo_label`` as a whole, on the toy's teachers."""

import csv
import json
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_kd.cli import main
from nnunet_kd.distillation.supervision import confidences
from nnunet_kd.networks.build import build_network
from nnunet_kd.phantoms.dataset import write_phantom_dataset
from nnunet_kd.planning.model_folder import open_model_folder
from nnunet_kd.pseudo_labels import command, labelling
from nnunet_kd.pseudo_labels.preparation import Request, prepare
from nnunet_kd.pseudo_labels.teachers import open_teachers

NAME = "Dataset901_Mixed"
CASES = ["phantom_test_000", "phantom_test_001"]
Label = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pool(site: Any) -> Path:
    """The toy's two test images."""
    folder: Path = site.raw / site.dataset / "imagesTs"
    return folder


@pytest.fixture
def label(pool: Path, teacher: Path) -> Label:
    """Run the verb with the toy's teacher."""

    def run(*options: str, images: Path = pool, name: str = NAME) -> int:
        arguments = ["pseudo_label", "-i", str(images), "-o", name, "--teacher", str(teacher)]
        return main([*arguments, "-np", "0", "-device", "cpu", "--no-mirroring", *options])

    return run


def read(file: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def table(site: Any) -> dict[str, dict[str, str]]:
    with (site.raw / NAME / "pseudo_labels.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def dataset_json(site: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((site.raw / NAME / "dataset.json").read_text())
    return content


def change(checkpoint: Path, size: float) -> None:
    """Give a teacher other weights."""
    content = torch.load(checkpoint, weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for name, weight in content["network_weights"].items():
        content["network_weights"][name] = weight + size * torch.randn(weight.shape, generator=generator)
    torch.save(content, checkpoint)


def files(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in sorted(folder.rglob("*")) if file.is_file()}


def test_labelled_and_pseudo_labelled_cases_are_mixed(label: Label, site: Any, pool: Path) -> None:
    assert label("--labelled", "900") == 0
    new, old = site.raw / NAME, site.raw / site.dataset
    for case in [f"phantom_{n:03d}" for n in range(6)]:
        for part in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
            assert (new / part).read_bytes() == (old / part).read_bytes()
    content = dataset_json(site)
    assert content["numTraining"] == 8 == len(list((new / "labelsTr").iterdir()))
    assert list(confidences(content)) == CASES
    for case in CASES:
        image = SimpleITK.ReadImage(str(pool / f"{case}_0000.nii.gz"))
        found = SimpleITK.ReadImage(str(new / "labelsTr" / f"{case}.nii.gz"))
        for part in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, part)() == getattr(found, part)()
        row, trust = table(site)[case], content["nnunet_kd"]["pseudo_labels"][case]
        assert 0 < trust["confidence"] < 1
        assert row["kept"] == "yes"
        assert float(row["confidence"]) == pytest.approx(trust["confidence"], rel=1e-5)
        assert float(row["volume_mm3_inner"]) == (SimpleITK.GetArrayFromImage(found) == 2).sum()
    beside = site.preprocessed / NAME
    for name in ("splits_final.json", "dataset.json"):
        assert (new / name).read_text() == (beside / name).read_text()
    validated = [case for fold in json.loads((beside / "splits_final.json").read_text()) for case in fold["val"]]
    assert sorted(validated) == [f"phantom_{n:03d}" for n in range(6)]


def test_one_teachers_labels_are_what_nnunet_predicts(label: Label, site: Any, pool: Path, teacher: Path) -> None:
    """On another grid than the teacher's, so that resampling and cropping are undone, too."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    images = pool.with_name("otherwise")
    images.mkdir()
    for case in CASES:
        image = SimpleITK.ReadImage(str(pool / f"{case}_0000.nii.gz"))
        image.SetSpacing((1.25, 0.8, 1.0))
        padded = SimpleITK.ConstantPad(image, (3, 0, 2), (0, 4, 1), 0.0)
        SimpleITK.WriteImage(padded, str(images / f"{case}_0000.nii.gz"))
    assert label("-f", "0", images=images) == 0
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(teacher), (0,))
    for case in CASES:
        data, properties = predictor.plans_manager.image_reader_writer_class().read_images(
            [str(images / f"{case}_0000.nii.gz")]
        )
        expected = predictor.predict_single_npy_array(data, properties)
        found = read(site.raw / NAME / "labelsTr" / f"{case}.nii.gz")
        assert len(np.unique(expected)) == 3
        assert (found == expected).mean() > 0.999


@pytest.mark.parametrize("weights", [(), ("--weights", "3", "1")])
def test_members_are_averaged_by_weight_and_disagree(
    label: Label, site: Any, teacher: Path, weights: tuple[str, ...]
) -> None:
    other = teacher.with_name("Other__nnUNetPlans__3d_fullres")
    shutil.copytree(teacher, other)
    change(other / "fold_0" / "checkpoint_final.pth", 0.1)
    assert label("-f", "0", "--teacher", str(other), *weights) == 0
    a, b = (probabilities(folder, CASES[0], site) for folder in (teacher, other))
    share = 0.75 if weights else 0.5
    mean = share * a + (1 - share) * b
    expected = mean.argmax(0)
    assert (read(site.raw / NAME / "labelsTr" / f"{CASES[0]}.nii.gz") == expected).mean() > 0.999
    row = table(site)[CASES[0]]
    assert float(row["confidence"]) == pytest.approx(float(mean.max(0)[expected > 0].mean()), abs=1e-3)
    labels = [a.argmax(0), b.argmax(0)]
    dice = [2 * np.logical_and(*(x == c for x in labels)).sum() / sum((x == c).sum() for x in labels) for c in (1, 2)]
    assert float(row["disagreement"]) == pytest.approx(1 - np.mean(dice), abs=1e-2)
    assert float(row["disagreement"]) > 0.05


def network_and_image(folder: Path, case: str, site: Any) -> tuple[Any, torch.Tensor]:
    """Return fold 0 and what it sees: the toy's images are one patch, with nothing to crop or resample."""
    _, teachers = open_teachers([str(folder)], None, ["0"], "checkpoint_final.pth")
    (volume,) = labelling.load_ensemble(teachers, "cpu", mirroring=False)
    image = read(site.raw / site.dataset / "imagesTs" / f"{case}_0000.nii.gz")
    return volume.member.network, torch.from_numpy((image - image.mean()) / image.std())[None, None]


def probabilities(folder: Path, case: str, site: Any) -> Any:
    network, x = network_and_image(folder, case, site)
    with torch.no_grad():
        return network(x)[0].softmax(1)[0].numpy()


def test_without_labelled_cases_there_are_no_folds_and_it_is_said(label: Label, site: Any, capsys: Capture) -> None:
    assert label("--labelled", "900") == 0
    assert label("--overwrite") == 0
    assert "NOTE: no case has a label of its own" in capsys.readouterr().out
    assert not list(site.root.glob(f"*/{NAME}/splits_final.json"))
    assert dataset_json(site)["numTraining"] == 2


def test_duplicates_are_left_out_and_listed(label: Label, site: Any, pool: Path, capsys: Capture) -> None:
    copy = SimpleITK.ReadImage(str(site.raw / site.dataset / "imagesTr" / "phantom_003_0000.nii.gz"))
    copy.SetOrigin((7, 8, 9))
    SimpleITK.WriteImage(SimpleITK.Cast(copy, SimpleITK.sitkFloat64)[::-1], str(pool / "copy_0000.nii.gz"))
    shutil.copy(pool / f"{CASES[0]}_0000.nii.gz", pool / "phantom_test_9_0000.nii.gz")
    assert label("--labelled", "900") == 0
    rows = table(site)
    assert {case: row["why"] for case, row in rows.items() if row["kept"] == "no"} == {
        "copy": "same images as labelled phantom_003",
        "phantom_test_9": f"same images as {CASES[0]} of the pool",
    }
    assert rows["copy"]["confidence"] == ""
    assert "left out copy: same images as labelled phantom_003" in capsys.readouterr().out
    assert dataset_json(site)["numTraining"] == 8
    only = pool.with_name("only")
    only.mkdir()
    (pool / "copy_0000.nii.gz").rename(only / "copy_0000.nii.gz")
    assert label("--labelled", "900", images=only, name="Dataset902_None") == 2
    assert "all 1 cases are duplicates" in capsys.readouterr().err


def test_another_choice_runs_no_teacher(
    label: Label, site: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert label("--labelled", "900") == 0
    monkeypatch.setattr(labelling, "label_case", lambda *_: pytest.fail("ran a teacher"))
    assert label("--labelled", "900", "--keep-fraction", "0.5", "--overwrite") == 0
    assert "2 cases to label with 2 networks, 2 finished before" in capsys.readouterr().out
    rows = table(site)
    kept = max(CASES, key=lambda case: float(rows[case]["confidence"]))
    assert {case: row["kept"] for case, row in rows.items()} == {c: "yes" if c == kept else "no" for c in CASES}
    assert [*dataset_json(site)["nnunet_kd"]["pseudo_labels"]] == [kept]
    assert len(list((site.raw / NAME / "labelsTr").iterdir())) == 7


def test_limits_that_leave_nothing_are_refused(label: Label, site: Any, teacher: Path, capsys: Capture) -> None:
    change(teacher / "fold_1" / "checkpoint_final.pth", 0.1)
    assert label("--max-disagreement", "0.001") == 2
    assert "keeps none of 2 cases, the lowest disagreement is 0." in capsys.readouterr().err
    assert not (site.raw / NAME).exists()


def test_an_interrupted_run_continues_and_a_changed_teacher_is_noticed(
    label: Label, site: Any, pool: Path, teacher: Path, capsys: Capture
) -> None:
    def interrupted(job: labelling.LabelJob, case: Any) -> None:
        if case[0].name == CASES[1]:
            raise KeyboardInterrupt
        labelling.label_case(job, case)

    def store() -> list[Path]:
        return sorted((site.preprocessed / NAME / labelling.FOLDER).iterdir())

    work = prepare(Request(images=pool, output=NAME, teachers=[str(teacher)], n_workers=0))
    with pytest.raises(KeyboardInterrupt):
        command.label(work, device="cpu", mirroring=False, whole_volume=False, n_workers=0, per_case=interrupted)
    assert not (site.raw / NAME).exists()
    (folder,) = store()
    before = (folder / f"{CASES[0]}.nii.gz").stat().st_mtime_ns
    assert label() == 0
    assert "2 cases to label with 2 networks, 1 finished before" in capsys.readouterr().out
    assert (folder / f"{CASES[0]}.nii.gz").stat().st_mtime_ns == before
    (folder / f"{CASES[1]}.nii.gz").write_bytes(b"damaged")
    assert label("--overwrite") == 0
    assert "1 finished before" in capsys.readouterr().out
    assert read(folder / f"{CASES[1]}.nii.gz").any()
    shutil.copy(site.raw / site.dataset / "imagesTr" / "phantom_000_0000.nii.gz", pool / f"{CASES[0]}_0000.nii.gz")
    assert label("--overwrite") == 0
    assert "1 finished before" in capsys.readouterr().out
    assert (folder / f"{CASES[0]}.nii.gz").stat().st_mtime_ns > before
    change(teacher / "fold_1" / "checkpoint_final.pth", 0.1)
    assert label("--overwrite") == 0
    said = capsys.readouterr().out
    assert f"left alone, labels by other teachers or settings: {folder}: teachers checkpoint sha256" in said
    assert "0 finished before" in said
    assert len(store()) == 2


def test_a_failed_case_costs_only_itself(
    label: Label, site: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def once(job: labelling.LabelJob, case: Any) -> None:
        if case[0].name == CASES[0]:
            raise RuntimeError("broken")
        original(job, case)

    original = labelling.label_case
    monkeypatch.setattr(labelling, "label_case", once)
    assert label() == 2
    assert "1 of 2 cases failed" in capsys.readouterr().err
    assert not (site.raw / NAME).exists()
    monkeypatch.setattr(labelling, "label_case", original)
    assert label() == 0
    assert "1 finished before" in capsys.readouterr().out


def test_the_decathlons_way_of_packing_channels_gives_the_same_labels(
    label: Label, site: Any, pool: Path, capsys: Capture
) -> None:
    assert label() == 0
    task = site.root / "Task99_Toy"
    (task / "imagesTr").mkdir(parents=True)
    (task / "dataset.json").write_text(json.dumps({"modality": {"0": "FLAIR", "1": "phantom0"}, "labels": {}}))
    for case in CASES:
        image = SimpleITK.ReadImage(str(pool / f"{case}_0000.nii.gz"))
        SimpleITK.WriteImage(SimpleITK.JoinSeries(image * 0 + 5, image), str(task / "imagesTr" / f"{case}.nii.gz"))
    capsys.readouterr()
    assert label(images=task / "imagesTr", name="Dataset902_Packed") == 0
    assert "channels of the pool: 1 as phantom0" in capsys.readouterr().out
    for case in CASES:
        for part in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"):
            np.testing.assert_array_equal(read(site.raw / NAME / part), read(site.raw / "Dataset902_Packed" / part))
    (task / "dataset.json").write_text(json.dumps({"modality": {"0": "FLAIR", "1": "T1w"}}))
    assert label(images=task, name="Dataset903_Unknown") == 2
    assert "names FLAIR, T1w; say which is which with --channel-order" in capsys.readouterr().err
    assert label("--channel-order", "1", images=task, name="Dataset903_Named") == 0


def test_images_can_be_linked(label: Label, site: Any, pool: Path) -> None:
    assert label("--labelled", "900", "--link") == 0
    images = site.raw / NAME / "imagesTr"
    assert (images / f"{CASES[0]}_0000.nii.gz").resolve() == (pool / f"{CASES[0]}_0000.nii.gz").resolve()
    assert (site.raw / NAME / "labelsTr" / "phantom_000.nii.gz").is_symlink()
    assert not (site.raw / NAME / "labelsTr" / f"{CASES[0]}.nii.gz").is_symlink()


REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inner": 3},
    "regions_class_order": [1, 2, 3],
}


@pytest.mark.parametrize("regions", [False, True])
def test_the_whole_volume_in_one_pass_averages_the_published_flips(
    site: Any, pool: Path, teacher: Path, regions: bool
) -> None:
    """X and y of the file are nnU-Net's last two axes; the slices' axis is not mirrored."""
    described = json.loads((teacher / "dataset.json").read_text()) | (REGIONS if regions else {})
    (teacher / "dataset.json").write_text(json.dumps(described))
    arguments = ["pseudo_label", "-i", str(pool), "-o", NAME, "--teacher", str(teacher), "-f", "0", "-np", "0"]
    assert main([*arguments, "-device", "cpu", "--whole-volume", "--channel-order", "0"]) == 0
    network, x = network_and_image(teacher, CASES[0], site)
    with torch.no_grad():
        outputs = [network(x.flip(axes))[0].flip(axes)[0] for axes in ((), (3,), (4,), (3, 4))]
    mean = torch.stack([z.sigmoid() if regions else z.softmax(0) for z in outputs]).mean(0).numpy()
    order = [1, 2, 3] if regions else None
    expected = LabelManager(described["labels"], order).convert_probabilities_to_segmentation(mean)
    assert len(np.unique(expected)) >= 3
    assert (read(site.raw / NAME / "labelsTr" / f"{CASES[0]}.nii.gz") == expected).mean() > 0.999
    own = mean.max(0) if order is None else np.take_along_axis(mean, np.maximum(expected, 1)[None] - 1, 0)[0]
    assert float(table(site)[CASES[0]]["confidence"]) == pytest.approx(float(own[expected > 0].mean()), abs=1e-4)


@pytest.mark.parametrize("window", [(), ("--whole-volume",)])
def test_a_2d_and_a_3d_teacher_label_together(
    label: Label, site: Any, pool: Path, teacher: Path, window: tuple[str, ...]
) -> None:
    flat = teacher.with_name("nnUNetTrainer__nnUNetPlans__2d")
    shutil.copytree(teacher, flat)
    checkpoint = torch.load(flat / "fold_0" / "checkpoint_final.pth", weights_only=False)
    checkpoint["network_weights"] = build_network(open_model_folder(flat), deep_supervision=True).state_dict()
    checkpoint["init_args"]["configuration"] = "2d"
    torch.save(checkpoint, flat / "fold_0" / "checkpoint_final.pth")
    assert label("-f", "0", "--teacher", str(flat), *window) == 0
    a = probabilities(teacher, CASES[0], site)
    network, x = network_and_image(flat, CASES[0], site)
    with torch.no_grad():
        slices = network(x[0].movedim(1, 0))[0].softmax(1).movedim(0, 1).numpy()
    found = read(site.raw / NAME / "labelsTr" / f"{CASES[0]}.nii.gz")
    assert (found == (a + slices).argmax(0)).mean() > 0.999


# ---- mistakes ----


def _nothing(site: Any, pool: Path) -> None:
    shutil.rmtree(pool)
    pool.mkdir()


def _second_channel(site: Any, pool: Path) -> None:
    for case in CASES:
        shutil.copy(pool / f"{case}_0000.nii.gz", pool / f"{case}_0001.nii.gz")


def _nan(site: Any, pool: Path) -> None:
    import nibabel

    for case in CASES:
        voxels = np.full((8, 8, 8), np.nan, dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), pool / f"{case}_0000.nii.gz")


def _taken(site: Any, pool: Path) -> None:
    (site.results / "Dataset901_Other").mkdir()


def _somebody_elses(site: Any, pool: Path) -> None:
    shutil.copytree(site.raw / site.dataset, site.raw / NAME)


def _folds_of_another(site: Any, pool: Path) -> None:
    (site.preprocessed / NAME).mkdir()
    (site.preprocessed / NAME / "splits_final.json").write_text("[]")


def _same_name(site: Any, pool: Path) -> None:
    for case in CASES:
        (pool / f"{case}_0000.nii.gz").rename(pool / f"{case.replace('test_', '')}_0000.nii.gz")


def _swapped_labels(site: Any, pool: Path) -> None:
    path = site.raw / site.dataset / "dataset.json"
    content = json.loads(path.read_text()) | {"labels": {"background": 0, "inner": 1, "outer": 2}}
    path.write_text(json.dumps(content))


def _mended_split(site: Any, pool: Path) -> None:
    (site.preprocessed / site.dataset / "splits_final.json").write_text('[{"train": ["gone"], "val": []}]')


MISTAKES: dict[str, tuple[Callable[[Any, Path], None] | None, list[str], str]] = {
    "empty pool": (_nothing, [], "expected images like CASE_0000.nii.gz"),
    "number of channels": (_second_channel, [], "the 2 above have some"),
    "not finite": (_nan, [], "the 2 above have some"),
    "number taken": (_taken, [], "expected number 901 to be free"),
    "not ours": (_somebody_elses, ["--overwrite"], "holds other things than a pseudo-labelled data set"),
    "folds of another": (_folds_of_another, [], "splits_final.json is of another data set"),
    "name": (None, ["-o", "Mixed"], "-o: expected a name like Dataset501_BratsPseudo"),
    "name of a labelled case": (
        _same_name,
        ["--labelled", "900"],
        "the 2 above have some; give the pool's cases other",
    ),
    "labels swapped": (_swapped_labels, ["--labelled", "900"], "--labelled Dataset900_Toy has labels"),
    "no such labelled": (None, ["--labelled", "77"], "--labelled: expected one data set '77'"),
    "unknown fold's case": (_mended_split, ["--labelled", "900"], "splits_final.json names gone"),
    "share": (None, ["--keep-fraction", "1.5"], "--keep-fraction"),
    "weights": (None, ["--weights", "1", "2"], "--weights: expected 1 numbers above 0"),
    "fold": (None, ["-f", "7"], "expected fold 7"),
    "order": (None, ["--channel-order", "0,1"], "--channel-order: expected 1 different numbers"),
    "channel": (None, ["--channel-order", "3"], "the 2 above have some"),
    "no folder": (None, ["-i", "nowhere"], "-i: expected a folder"),
}


@pytest.mark.parametrize(("prepare_mistake", "options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(
    label: Label,
    site: Any,
    pool: Path,
    capsys: Capture,
    prepare_mistake: Callable[[Any, Path], None] | None,
    options: list[str],
    message: str,
) -> None:
    if prepare_mistake is not None:
        prepare_mistake(site, pool)
    before = files(site.root)
    capsys.readouterr()
    assert label(*options) == 2
    *listed, line = [each for each in capsys.readouterr().err.splitlines() if each and "case/s" not in each]
    assert message in line
    assert "\n" not in line
    assert [each for each in listed if not each.startswith("  ")] == []  # one line per case, all at once
    assert len(listed) == (2 if "above have some" in line else 0)
    assert files(site.root) == before


def test_an_earlier_data_set_is_replaced_only_when_asked(label: Label, site: Any, pool: Path, capsys: Capture) -> None:
    assert label() == 0
    before = files(site.raw / NAME)
    assert label() == 2
    assert "type --overwrite" in capsys.readouterr().err
    assert files(site.raw / NAME) == before
    assert label("--overwrite", images=site.raw / NAME) == 2
    assert "would replace" in capsys.readouterr().err


# ---- on to a student ----


def test_the_next_commands_name_options_that_exist(label: Label, capsys: Capture, teacher: Path) -> None:
    from nnunet_kd.planning.command import add_arguments

    assert label("--labelled", "900", "--soft-labels") == 0
    said = capsys.readouterr().out.splitlines()
    (line,) = [each.split() for each in said if each.startswith("  nnunet_kd plan")]
    parser = ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(line[2:])
    assert options.teacher == [f"Dataset900_Toy/{teacher.name}"]
    assert (options.d, options.folds, options.teacher_outputs) == ("901", ["0", "1"], "cached")


@pytest.mark.slow
def test_a_student_learns_from_the_mixed_data_set_and_the_soft_labels(label: Label, site: Any, capsys: Capture) -> None:
    """The printed commands, in this process and with a tiny budget; nnU-Net's check of the data set included."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, preprocess
    from nnunetv2.run.run_training import get_trainer_from_args

    assert label("--labelled", "900", "--soft-labels") == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  nn")]
    fingerprint, plan, _, cache, _ = printed
    assert fingerprint[0] == "nnUNetv2_extract_fingerprint"
    extract_fingerprints([901], num_processes=1, check_dataset_integrity=True, show_progress_bar=False)
    budget = ["--epochs", "1", "--iterations", "2", "--val-iterations", "1", "--shrink", "2"]
    assert main([*plan[1:], *budget]) == 0
    preprocess([901], "nnUNetKDPlans", configurations=["3d_fullres"], num_processes=[1])
    assert main([*cache[1:], "-np", "0", "-device", "cpu"]) == 0
    student = get_trainer_from_args(NAME, "3d_fullres", 0, "KDTrainer", "nnUNetKDPlans", False, torch.device("cpu"))
    student.run_training()
    assert np.isfinite(student.logger.get_value("kd_logits_kl", -1))
    training, validation = student.do_split()
    assert set(CASES) <= set(training)
    assert not set(CASES) & set(validation)
    assert open_model_folder(student.output_folder_base).dataset_json["nnunet_kd"]["pseudo_labels"]


@pytest.mark.slow
def test_processes_give_the_same_as_this_one(label: Label, site: Any, pool: Path, teacher: Path) -> None:
    write_phantom_dataset(site.raw, dataset_id=910, name="Pool", n_train=2, n_test=0, seed=5, shape=(20, 24, 20))
    more = site.raw / "Dataset910_Pool" / "imagesTr"
    assert label("-f", "0", images=more) == 0
    assert main(["pseudo_label", "-i", str(more), "-o", "Dataset902_Parallel", "--teacher", str(teacher), "-f", "0",
                 "-np", "2", "-device", "cpu", "--no-mirroring"]) == 0  # fmt: skip
    for file in (site.raw / NAME / "labelsTr").iterdir():
        assert file.read_bytes() == (site.raw / "Dataset902_Parallel" / "labelsTr" / file.name).read_bytes()
