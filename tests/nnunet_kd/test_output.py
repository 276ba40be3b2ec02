"""Claims about folders that replace others."""

import os
from pathlib import Path

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable, continued_folder, move_into_place, work_folder


def _fill(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "content").write_text(text)
    return folder


def _visible(folder: Path) -> dict[str, str]:
    return {path.name: (path / "content").read_text() for path in folder.iterdir()}


def test_two_runs_to_one_target_do_not_meet(tmp_path: Path) -> None:
    with work_folder(tmp_path / "out") as first, work_folder(tmp_path / "out") as second:
        for work, text in ((first, "1"), (second, "2")):
            move_into_place(_fill(work / "new", text), tmp_path / "out")
    assert _visible(tmp_path) == {"out": "2"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_where_replacing_fails(
    tmp_path: Path, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    _fill(tmp_path / "out", "old")
    with pytest.raises(error), work_folder(tmp_path / "out") as work:
        move_into_place(_fill(work / "new", "new"), tmp_path / "out")
    assert _visible(tmp_path) == {"out": "old"}


@pytest.mark.skipif(os.name == "nt", reason="no flock")
@pytest.mark.parametrize("killed_when", ["writing", "replacing"])
def test_next_run_mends_what_a_killed_one_left(tmp_path: Path, killed_when: str) -> None:
    child = os.fork()
    if child == 0:  # dies without a word, as after kill -9 or a power cut
        running = work_folder(tmp_path / "out")
        work = running.__enter__()
        _fill(tmp_path / "out", "old")
        _fill(work / "new", "new")
        if killed_when == "replacing":
            (tmp_path / "out").rename(work / "old")
        os._exit(9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".out*"))) == 1
    with work_folder(tmp_path / "out"):
        pass
    assert _visible(tmp_path) == {"out": "old"}


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "theirs", "ours"])
def test_only_our_own_folders_are_replaced_and_only_when_told(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.touch()
    elif kind in ("theirs", "ours"):
        _fill(target, kind)
    else:
        target.symlink_to(_fill(tmp_path / "real", "ours") if kind == "link" else tmp_path / "nowhere")

    def check(*, overwrite: bool) -> None:
        check_replaceable(
            target, is_ours=lambda folder: (folder / "content").read_text() == "ours", what="x", overwrite=overwrite
        )

    if kind == "ours":
        with pytest.raises(UsageError, match="--overwrite"):
            check(overwrite=False)
        check(overwrite=True)
    else:
        with pytest.raises(UsageError, match="a file or a link" if kind != "theirs" else "other things than x"):
            check(overwrite=True)


def _fail(target: Path, key: str, error: BaseException) -> None:
    with continued_folder(target, key) as work:
        _fill(work / "new", "half")
        raise error


def _killed(target: Path, key: str) -> None:
    child = os.fork()
    if child == 0:
        running = continued_folder(target, key)  # kept: its end would clear the folder
        _fill(running.__enter__() / "new", "half")
        os._exit(9)
    os.waitpid(child, 0)


@pytest.mark.skipif(os.name == "nt", reason="no flock")
@pytest.mark.parametrize("ended", ["killed", "ctrl-C"])
def test_only_the_same_work_goes_on(tmp_path: Path, ended: str) -> None:
    target = tmp_path / "out"
    for other, kept in (("same", True), ("other", False)):
        if ended == "killed":
            _killed(target, "same")
        else:
            with pytest.raises(KeyboardInterrupt):
                _fail(target, "same", KeyboardInterrupt())
        with continued_folder(target, other) as work:
            assert (work / "new").exists() == kept
        assert list(tmp_path.iterdir()) == []


def test_work_of_a_run_that_lives_is_not_taken_over(tmp_path: Path) -> None:
    with continued_folder(tmp_path / "out", "k") as first, continued_folder(tmp_path / "out", "k") as second:
        assert first != second
    assert list(tmp_path.iterdir()) == []


def test_failed_work_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        _fail(tmp_path / "out", "k", OSError("full"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no flock")
@pytest.mark.parametrize("replaced", [False, True])
def test_folder_moved_aside_comes_back_unless_it_was_replaced(tmp_path: Path, replaced: bool) -> None:
    target = tmp_path / "out"
    _killed(target, "k")
    (work,) = tmp_path.iterdir()
    _fill(work / "old", "old")
    if replaced:
        _fill(target, "new")
    with continued_folder(target, "k") as work:
        move_into_place(work / "new", target)
    assert _visible(tmp_path) == {"out": "half"}
