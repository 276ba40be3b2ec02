"""Claims about ``nnunet_kd cache_teacher`` and about training on what it stored."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from nnunet_kd.cli import main
from nnunet_kd.distillation import cache_command, soft_labels
from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.distillation.teacher_volumes import CacheJob, VolumeTeacher, cache_case, load_teachers
from nnunet_kd.planning.model_folder import open_model_folder

COMMAND = ["cache_teacher", "-d", "900", "-c", "3d_fullres", "-f", "0", "-device", "cpu", "-np", "0"]
CACHED = ("--teacher-outputs", "cached", "--no-mirroring")  # mirrored, a case takes eight times as long
Plan = Callable[..., int]
Make = Callable[..., Any]
Capture = pytest.CaptureFixture[str]


def caches(site: Any, fold: str = "fold_0") -> list[Path]:
    return sorted((site.preprocessed / site.dataset / soft_labels.FOLDER).glob(f"*/{fold}"))


def times(folder: Path) -> dict[str, int]:
    return {file.stem: file.stat().st_mtime_ns for file in folder.glob("*.b2nd")}


def change(checkpoint: Path, seed: int) -> None:
    """Give a teacher other weights."""
    content = torch.load(checkpoint, weights_only=False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in content["network_weights"].items():
        content["network_weights"][name] = weight + 0.1 * torch.randn(weight.shape, generator=generator)
    torch.save(content, checkpoint)


def stops(trainer: Any, capsys: Capture) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        trainer.on_train_start()
    assert stop.value.code == 2
    return capsys.readouterr().err


def prepared(site: Any) -> cache_command.Cache:
    folder = site.preprocessed / site.dataset
    (cache,) = cache_command.prepare(folder, "3d_fullres", "nnUNetKDPlans", folds=["0"], device="cpu")
    return cache


def test_training_on_the_cache_needs_no_teacher(plan: Plan, site: Any, teacher: Path, make_trainer: Make) -> None:
    assert plan(*CACHED) == 0
    assert main(COMMAND) == 0
    (folder,) = caches(site)
    manifest = json.loads((folder / "manifest.json").read_text())
    splits = json.loads((site.preprocessed / site.dataset / "splits_final.json").read_text())
    assert sorted(manifest["cases"]) == sorted(splits[0]["train"])
    assert manifest["settings"]["temperature"] == 2
    shutil.rmtree(teacher)
    trainer = make_trainer()
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("kd_logits_kl", -1))
    log = Path(trainer.log_file).read_text()
    assert "Soft labels at T = 2 of nnUNetTrainer__nnUNetPlans__3d_fullres fold 0" in log
    assert "Teacher's pseudo Dice on the first batch" in log


def test_the_cache_holds_the_mean_over_members_of_the_softened_mirrored_outputs(
    plan: Plan, site: Any, teacher: Path
) -> None:
    """The toy's cases are one patch large, so that the networks can be asked directly."""
    change(teacher / "fold_1" / "checkpoint_final.pth", seed=1)
    assert plan("--teacher-outputs", "cached", "--folds", "0", "1", "--losses", "logits_kl:temperature=3") == 0
    assert main(COMMAND) == 0
    (cache,) = cache_command.prepare(site.preprocessed / site.dataset, "3d_fullres", "nnUNetKDPlans", device="cpu")
    assert len(cache.images) == 6  # an ensemble of fixed folds serves every fold, so every case is there
    (folder,) = cache.soft_labels.folders.values()
    case = next(iter(cache.images))
    image = torch.from_numpy(cache.job.dataset([case]).load_case(case)[0][:])[None]
    expected = torch.zeros(())
    flips = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
    for member in load_teachers(cache.job, torch.device("cpu")):
        with torch.no_grad():
            logits = sum(member.network(image.flip(axes))[0].flip(axes).double() for axes in flips) / len(flips)
        expected = expected + torch.softmax(logits / 3, dim=1)[0] / 2
    found = torch.from_numpy(soft_labels.open_case(folder, case)[:]) / 255
    assert float((found - expected[1:]).abs().max()) < 0.5 / 255 + 1e-5


def test_tiles_are_joined_as_a_float64_sum_over_nnunets_tiles(site: Any, teacher: Path, plan: Plan) -> None:
    """nnU-Net's own sum is float16: at an image's corners its weights underflow and logits become whole numbers."""
    assert plan(*CACHED) == 0
    (member,) = load_teachers(prepared(site).job, torch.device("cpu"))
    volume = VolumeTeacher(
        member, open_model_folder(teacher), mirror_axes=None, step_size=0.5, device=torch.device("cpu")
    )
    image = torch.randn(1, 27, 24, 33, generator=torch.Generator().manual_seed(0))
    spike = np.zeros((20, 24, 20))
    spike[10, 12, 10] = 1
    gaussian = torch.from_numpy(gaussian_filter(spike, (2.5, 3, 2.5), mode="constant"))
    total, weights = torch.zeros(3, 27, 24, 33, dtype=torch.float64), torch.zeros(27, 24, 33, dtype=torch.float64)
    for x, z in itertools.product((0, 7), (0, 6, 13)):
        with torch.no_grad():
            tile = member.network(image[None, :, x : x + 20, :, z : z + 20])[0][0]
        total[:, x : x + 20, :, z : z + 20] += tile * gaussian
        weights[x : x + 20, :, z : z + 20] += gaussian
    ours = volume.logits(image)
    theirs = volume.predictor.predict_sliding_window_return_logits(image).float()
    torch.testing.assert_close(ours, (total / weights).float(), atol=1e-3, rtol=1e-3)
    error = (ours - theirs).abs()
    assert float(error.median()) < 0.01


def test_an_interrupted_run_continues_with_what_is_left(plan: Plan, site: Any, capsys: Capture) -> None:
    def interrupted(job: CacheJob, case: str) -> None:
        if len(caches(site)) and len(times(caches(site)[0])) == 2:
            raise KeyboardInterrupt
        cache_case(job, case)

    assert plan(*CACHED) == 0
    with pytest.raises(KeyboardInterrupt):
        cache_command.fill(prepared(site), n_workers=0, work=interrupted)
    before = times(caches(site)[0])
    assert len(before) == 2
    capsys.readouterr()
    assert main(COMMAND) == 0
    assert "4 cases, 2 finished before" in capsys.readouterr().out
    after = times(caches(site)[0])
    assert len(after) == 4
    assert {case: after[case] for case in before} == before


def test_a_killed_worker_loses_nothing(plan: Plan, site: Any, tmp_path: Path) -> None:
    marker = tmp_path / "killed"

    def killed_once(job: CacheJob, case: str) -> None:
        if case.endswith("2") and not marker.exists():
            marker.touch()
            os._exit(1)
        cache_case(job, case)

    assert plan(*CACHED) == 0
    cache = prepared(site)
    assert any(case.endswith("2") for case in cache.images)
    cache_command.fill(cache, n_workers=2, work=killed_once)
    assert marker.exists()
    assert cache_command.unfinished(cache) == []


def test_unusable_cases_are_named_before_training_and_made_anew(
    plan: Plan, site: Any, make_trainer: Make, capsys: Capture
) -> None:
    assert plan(*CACHED) == 0
    line = stops(make_trainer(), capsys)
    assert "found none; type: nnunet_kd cache_teacher -d Dataset900_Toy -c 3d_fullres -p nnUNetKDPlans -f 0" in line
    assert main(COMMAND) == 0
    (folder,) = caches(site)
    missing, damaged, stale, whole = sorted(times(folder))
    (folder / f"{missing}.b2nd").unlink()
    (folder / f"{damaged}.b2nd").write_bytes(b"\0" * (folder / f"{damaged}.b2nd").stat().st_size)
    image = site.preprocessed / site.dataset / "nnUNetPlans_3d_fullres" / f"{stale}.b2nd"
    image.write_bytes(image.read_bytes() + b"\0")
    line = stops(make_trainer(), capsys)
    assert f"{missing} (missing), {damaged} (damaged), {stale} (of another image)" in line
    assert whole not in line
    before = times(folder)
    assert main(COMMAND) == 0
    assert times(folder)[whole] == before[whole]
    make_trainer().on_train_start()


def test_a_changed_teacher_is_noticed_and_gets_a_cache_of_its_own(
    plan: Plan, site: Any, teacher: Path, make_trainer: Make, capsys: Capture
) -> None:
    assert plan(*CACHED) == 0
    assert main(COMMAND) == 0
    (old,) = caches(site)
    change(teacher / "fold_0" / "checkpoint_final.pth", seed=2)
    assert "changed since it was planned" in stops(make_trainer(), capsys)
    assert main(COMMAND) == 2
    assert plan(*CACHED, "--overwrite") == 0
    assert f"found only {old}: teachers checkpoint sha256" in stops(make_trainer(), capsys)
    assert main(COMMAND) == 0
    assert f"left alone: {old}" in capsys.readouterr().out
    assert len(caches(site)) == 2


def test_checkpoints_unknown_when_planned_are_recorded_in_the_plans(
    plan: Plan, site: Any, teacher: Path, make_trainer: Make, capsys: Capture
) -> None:
    (teacher / "fold_0").rename(teacher / "later")
    assert plan(*CACHED) == 0
    (teacher / "later").rename(teacher / "fold_0")
    assert "do not record the checkpoint of teacher" in stops(make_trainer(), capsys)
    assert main(COMMAND) == 0
    (entry,) = site.plans("nnUNetKDPlans")["kd"]["configurations"]["3d_fullres"]["teachers"]
    assert entry["sha256"]["0"] == file_sha256(teacher / "fold_0" / "checkpoint_final.pth")
    make_trainer().on_train_start()


def test_every_temperature_has_its_cache(plan: Plan, site: Any, make_trainer: Make) -> None:
    losses = ("--losses", "logits_kl:temperature=1", "logits_kl:temperature=4")
    assert plan(*CACHED, *losses) == 0
    assert main(COMMAND) == 0
    assert len(caches(site)) == 2
    trainer = make_trainer()
    trainer.run_training()
    assert np.isfinite([trainer.logger.get_value(f"kd_logits_kl_{n}", -1) for n in (1, 2)]).all()


def test_mistakes_are_one_line_with_what_to_type(
    plan: Plan, site: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan() == 0
    capsys.readouterr()
    assert main(COMMAND) == 2
    assert "--teacher-outputs cached --overwrite" in capsys.readouterr().err
    assert plan(*CACHED, "--overwrite", "--losses", "attention_transfer") == 2
    assert "attention_transfer compares feature maps, which are not cached" in capsys.readouterr().err
    assert plan(*CACHED, "--overwrite") == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    assert main(COMMAND) == 2
    assert "of free space" in capsys.readouterr().err
    assert not caches(site)
