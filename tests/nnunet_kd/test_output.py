"""Claims about folders that replace others."""

import os
from pathlib import Path

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable, move_into_place, work_folder


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
