"""Claims about trainings that torchrun starts; the slow ones start it."""

import argparse
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.distributed import HashStore, PrefixStore

from nnunet_kd import launch
from nnunet_kd.distillation.checkpoints import load_checkpoint_safely
from nnunet_kd.distillation.ranks import Place, Stopped, lost_contact, meet, silent_ranks
from nnunet_kd.errors import UsageError

Plan = Callable[..., int]
STUDENT = ["900", "3d_fullres", "0", "-tr", "KDTrainer", "-p", "nnUNetKDPlans", "-device", "cpu"]
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--standalone"]


def place(rank: int = 0, world_size: int = 2, **changes: int) -> Place:
    return Place(rank=rank, world_size=world_size, local_rank=rank, local_world_size=world_size, **changes)


@pytest.fixture
def by_torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of rank 0 of 2."""
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # nobody answers there
    return monkeypatch


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the module, which must end with status 2 and one line, and return the line."""
    assert launch.main([*arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nnunet_kd.launch: ")]
    assert len(lines) == 1
    return lines[0]


# ---- the command line ----


def test_every_argument_of_nnunets_own_command_is_known_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.run.run_training import run_training_entry

    parsers: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        parsers.append(parser)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(KeyboardInterrupt):
            run_training_entry()
    theirs, ours = (
        {tuple(action.option_strings) or action.dest: (action.dest, action.default) for action in parser._actions}
        for parser in (parsers[0], launch.build_parser())
    )
    assert len(theirs) > 10
    del theirs[("-num_gpus",)], ours[("-num_gpus",)]
    assert ours == theirs


def test_a_start_without_torchrun_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert "type: torchrun --nproc-per-node" in refusal(capsys, *STUDENT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-num_gpus", "2"], "torchrun --nproc-per-node 2 -m nnunet_kd.launch"),
        (["-tr", "nnUNetTrainer"], "type -tr KDTrainer"),
        (["-tr", "Nobody"], "no trainer 'Nobody'"),
        (["--c", "--val"], "one of --c and --val"),
        (["-p", "Missing"], "Missing.json"),
    ],
)
def test_mistakes_end_in_a_line_before_anything_starts(
    arguments: list[str],
    words: str,
    site: Any,
    plan: Plan,
    by_torchrun: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan()
    assert words in refusal(capsys, *STUDENT, *arguments)
    assert not site.model("nnUNetKDPlans").exists()


def test_more_ranks_than_samples_in_a_batch_are_refused_before_anything_starts(
    site: Any, plan: Plan, by_torchrun: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    by_torchrun.setenv("WORLD_SIZE", "3")
    assert "expected at most 2 processes" in refusal(capsys, *STUDENT)
    assert not site.model("nnUNetKDPlans").exists()


def test_unequal_shares_are_refused_only_where_the_dice_gathers_them() -> None:
    launch.check_batch(3, 2, batch_dice=False)
    launch.check_batch(4, 2, batch_dice=True)
    with pytest.raises(UsageError, match="divides 3"):
        launch.check_batch(3, 2, batch_dice=True)


def test_a_restart_continues_and_never_from_an_earlier_training() -> None:
    fresh, asked = (launch.build_parser().parse_args([*STUDENT, *more]) for more in ([], ["--c"]))
    saved = ["checkpoint_latest.pth"]
    restarting = place(max_restarts=1)
    assert launch.continues(fresh, restarting, attempt=1, saved=saved)
    assert not launch.continues(fresh, restarting, attempt=1, saved=[])
    assert launch.continues(asked, restarting, attempt=0, saved=saved)
    assert not launch.continues(fresh, place(), attempt=0, saved=saved)  # overwritten, as nnUNetv2_train does
    with pytest.raises(UsageError, match="type --c to continue"):
        launch.continues(fresh, restarting, attempt=0, saved=saved)


def test_the_line_after_a_loss_names_rank_checkpoint_and_command(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_latest.pth").touch()
    line = launch.loss_message([1], place(), STUDENT, tmp_path)
    assert line.startswith("rank 1 of 2 was lost")
    assert "checkpoint_latest.pth" in line
    assert line.endswith("-m nnunet_kd.launch 900 3d_fullres 0 -tr KDTrainer -p nnUNetKDPlans -device cpu --c")


# ---- ranks ----


def test_what_an_earlier_attempt_left_in_the_store_is_no_answer() -> None:
    """The store of torchrun outlives its restarts; the second round must not see the first one's entries."""
    store = HashStore()
    for value in ("first", "second"):
        results: dict[int, Any] = {}

        def work(rank: int, value: str = value, results: dict[int, Any] = results) -> None:
            time.sleep(0.2 * rank)  # rank 0 meets what rank 1 left before rank 1 comes
            clean, seen = meet(store, place(rank), f"{value} {rank}")
            results[rank] = (clean, seen)

        threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert {rank: seen for rank, (_, seen) in results.items()} == {r: [f"{value} 0", f"{value} 1"] for r in (0, 1)}
        results[0][0].set("note", value)
        assert results[1][0].get("note") == value.encode()  # one room for both
    assert isinstance(results[0][0], PrefixStore)


def test_ranks_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_kd.distillation.ranks.PATIENCE", 0.2)
    store = HashStore()
    store.set("left/2", "1")
    assert silent_ranks(store, place(0, 4)) == [1, 3]


def test_an_error_of_its_own_is_no_loss_of_another() -> None:
    assert lost_contact(Stopped())
    assert lost_contact(RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not lost_contact(RuntimeError("shape mismatch"))


# ---- several processes ----


def environment(site: Any) -> dict[str, str]:
    return {**os.environ, **site.environment(), "OMP_NUM_THREADS": "1"}


_FIRST_STEP = """
    import os, sys, torch, torch.distributed as dist
    from pathlib import Path
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunet_kd import launch
    from nnunet_kd.distillation.ranks import open_store, read_place

    out, *arguments = sys.argv[1:]
    options, place = launch.build_parser().parse_args(arguments), read_place("")
    store, start = launch.join(options, place, open_store(), launch.find_fold(options, place.world_size))
    dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.world_size)
    trainer = get_trainer_from_args("900", "3d_fullres", 0, options.tr, options.p, False, start.device)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    whole = torch.load(f"{out}/batch.pt")
    own = slice(place.rank * trainer.batch_size, (place.rank + 1) * trainer.batch_size)
    trainer.update = lambda total: total.backward()
    trainer.train_step({"data": whole["data"][own], "target": [scale[own] for scale in whole["target"]]})
    gradient = {name: value.grad for name, value in trainer.bare_network().named_parameters()}
    trainer.num_epochs, trainer._last_saved = 1000, trainer._last_saved - 1e6 * place.rank
    drawn = next(trainer.dataloader_train)["data"]
    torch.save({"gradient": gradient, "due": trainer._save_is_due(), "drawn": drawn}, f"{out}/{place.rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("n_ranks", "batch_dice"), [(2, True), (4, False)])
def test_the_first_gradient_over_ranks_is_that_of_one_process(
    n_ranks: int, batch_dice: bool, site: Any, plan: Plan, make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    plan("--seed", "0", "--precision", "float32")
    plans = site.plans("nnUNetKDPlans")
    plans["configurations"]["3d_fullres"].update(batch_size=4, batch_dice=batch_dice)
    site.write_plans(plans)
    trainer = make_trainer()
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    batch = next(trainer.dataloader_train)
    torch.save({"data": batch["data"], "target": batch["target"]}, tmp_path / "batch.pt")
    trainer.update = lambda total: total.backward()
    trainer.train_step(batch)
    script = tmp_path / "first_step.py"
    script.write_text(textwrap.dedent(_FIRST_STEP))
    command = [*TORCHRUN, "--nproc-per-node", str(n_ranks), str(script), str(tmp_path), *STUDENT]
    result = subprocess.run(command, env=environment(site), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(n_ranks)]
    expected = flat({name: value.grad for name, value in trainer.bare_network().named_parameters()})
    for rank in ranks:
        difference = flat(rank["gradient"]) - expected
        assert float(difference.norm() / expected.norm()) < 1e-5
    assert len({float(rank["drawn"].sum()) for rank in ranks}) == n_ranks  # different patches
    assert [rank["due"] for rank in ranks] == [False] * n_ranks  # the clock of rank 0, whatever the others' say


def flat(gradient: dict[str, torch.Tensor | None]) -> torch.Tensor:
    """Return one vector; the coarsest output has no weight, so no gradient, in a single process."""
    kept = {name: value for name, value in gradient.items() if "seg_layers.0" not in name}
    return torch.cat([torch.zeros(0) if value is None else value.flatten() for value in kept.values()])


@pytest.mark.slow
def test_a_killed_process_is_survived_by_a_restart(site: Any, plan: Plan, tmp_path: Path) -> None:
    plan("--seed", "0", "--epochs", "8")
    fold = site.model("nnUNetKDPlans") / "fold_0"
    command = [*TORCHRUN, "--max-restarts", "1", "--nproc-per-node", "2", "-m", "nnunet_kd.launch", *STUDENT]
    with (tmp_path / "out.txt").open("w") as out:
        agent = subprocess.Popen(command, env=environment(site), cwd=tmp_path, stdout=out, stderr=out)
        deadline = time.monotonic() + 240
        while not (fold / "checkpoint_latest.pth").exists() and agent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = {child.environ().get("RANK"): child for child in psutil.Process(agent.pid).children()}
        workers["1"].kill()
        assert agent.wait(300) == 0
    text = (tmp_path / "out.txt").read_text()
    assert "nnunet_kd.launch: rank 1 of 2 was lost" in text
    assert "Continuing from checkpoint_" in text
    final = load_checkpoint_safely(fold / "checkpoint_final.pth")
    assert final["current_epoch"] == len(final["logging"]["train_losses"]) == 8
    assert len(final["kd"]["random"]) == 2
    assert (fold / "validation" / "summary.json").is_file()
    logs = [path.read_text() for path in fold.glob("training_log*.txt")]
    assert len(logs) == 2  # one per start: rank 0 writes, the others do not
    assert any("at epoch 0" not in log and "Continuing from" in log for log in logs)
