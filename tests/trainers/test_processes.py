"""Claims that need real processes: nnU-Net's own commands, two gloo ranks, kill -9."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch

from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

Plan = Callable[..., int]
BIN = Path(sys.executable).parent


def environment(site: Any) -> dict[str, str]:
    """nnU-Net's folders and nothing else of ours: the trainers must be found by themselves."""
    inherited = {key: value for key, value in os.environ.items() if key != "nnUNet_extTrainer"}
    return {**inherited, **site.environment(), "OMP_NUM_THREADS": "1"}


def run(site: Any, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment(site), cwd=cwd, capture_output=True, text=True, check=False)


def test_nnunets_own_commands_train_and_predict_with_nothing_set_by_hand(site: Any, plan: Plan, tmp_path: Path) -> None:
    plan("--epochs", "1")
    train = [str(BIN / "nnUNetv2_train"), "900", "3d_fullres", "0", "-tr", "KDTrainer", "-p", "nnUNetKDPlans"]
    result = run(site, *train, "-device", "cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    predict = [str(BIN / "nnUNetv2_predict"), "-d", "900", "-c", "3d_fullres", "-f", "0", "-tr", "KDTrainer"]
    images = site.raw / site.dataset / "imagesTs"
    # default workers: the class is looked up and unpickled in spawned children too
    options = ["-p", "nnUNetKDPlans", "-i", str(images), "-o", str(tmp_path / "out"), "-device", "cpu"]
    result = run(site, *predict, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    for reference in (site.raw / site.dataset / "labelsTs").glob("*.nii.gz"):
        ours, theirs = (sitk.ReadImage(str(path)) for path in (tmp_path / "out" / reference.name, reference))
        assert ours.GetSize() == theirs.GetSize()


def test_a_users_mistake_ends_nnunets_command_with_one_line_and_status_two(
    site: Any, plan: Plan, teacher: Path, tmp_path: Path
) -> None:
    plan()
    (teacher / "fold_0" / "checkpoint_final.pth").write_bytes(b"another")
    train = [str(BIN / "nnUNetv2_train"), "900", "3d_fullres", "0", "-tr", "KDTrainer", "-p", "nnUNetKDPlans"]
    result = run(site, *train, "-device", "cpu", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "changed since it was planned" in result.stderr.splitlines()[-1]


_RANK = """
    import json, sys, torch, torch.distributed as dist, torch.multiprocessing as mp
    from pathlib import Path

    def work(rank, port, out):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
        from nnunetv2.run.run_training import get_trainer_from_args
        arguments = "900", "3d_fullres", 0, "KDTrainer", "nnUNetKDPlans", False, torch.device("cpu")
        trainer = get_trainer_from_args(*arguments)
        trainer.run_training()
        modules = {"weights": trainer.bare_network(), "adapters": trainer.features.adapters}
        flat = {k: torch.cat([v.flatten() for v in m.state_dict().values()]) for k, m in modules.items()}
        torch.save({**flat, "batch": trainer.batch_size, "device": str(trainer.device),
                    "log": trainer.logger.local_logger.my_fantastic_logging["kd_logits_kl"]}, f"{out}/{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()

    if __name__ == "__main__":
        mp.spawn(work, args=(int(sys.argv[1]), sys.argv[2]), nprocs=2)
"""


def test_two_gloo_processes_train_one_student(site: Any, plan: Plan, tmp_path: Path) -> None:
    import socket

    projected = 'feature_kl:pairs=[["decoder[:]","output"]],projector=random_per_step'
    plan("--seed", "0", "--losses", "logits_kl", "fitnet:weight=0.1", projected)
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(_RANK))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run(site, sys.executable, str(script), str(port), str(tmp_path), cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])  # gradients were averaged
    assert torch.equal(ranks[0]["adapters"], ranks[1]["adapters"])  # and those of adapters, which DDP does not know
    assert [rank["batch"] for rank in ranks] == [1, 1]  # nnU-Net's split of the planned batch of two
    assert {rank["device"] for rank in ranks} == {"cpu"}
    assert ranks[0]["log"] == pytest.approx(ranks[1]["log"])
    folder = site.model("nnUNetKDPlans") / "fold_0"
    assert len(load_checkpoint_safely(folder / "checkpoint_final.pth")["kd"]["random"]) == 2


def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(site: Any, plan: Plan, tmp_path: Path) -> None:
    """Killed at growing delays after a checkpoint was saved; each restart continues from a whole one."""
    plan("--seed", "0", "--epochs", "60", "--iterations", "1")
    latest = site.model("nnUNetKDPlans") / "fold_0" / "checkpoint_latest.pth"
    train = [str(BIN / "nnUNetv2_train"), "900", "3d_fullres", "0", "-tr", "KDTrainer", "-p", "nnUNetKDPlans"]
    reached = 0
    for delay in (0.0, 0.15, 0.4):
        with (tmp_path / "out.txt").open("w") as out:
            child = subprocess.Popen(
                [*train, "-device", "cpu", "--c"], env=environment(site), cwd=tmp_path, stdout=out, stderr=out
            )
            before, deadline = saved_at(latest), time.monotonic() + 240
            while saved_at(latest) == before and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(delay)
            child.kill()
            assert child.wait() == -signal.SIGKILL
        checkpoint = load_checkpoint_safely(latest)
        assert checkpoint["current_epoch"] == len(checkpoint["logging"]["train_losses"])
        assert checkpoint["current_epoch"] > reached  # training went on from where it was
        assert np.isfinite(checkpoint["logging"]["kd_logits_kl"]).all()
        reached = checkpoint["current_epoch"]


def saved_at(path: Path) -> int:
    """Return when a file was replaced last, 0 when there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0
