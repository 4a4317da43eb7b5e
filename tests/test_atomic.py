"""Files and folders that are replaced are whole, whatever interrupts the writer."""

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from streaming_vlm_mlx import atomic
from streaming_vlm_mlx.atomic import replacing, replacing_folder, write_text
from streaming_vlm_mlx.errors import SvmError

BREAKS = [ValueError("a defect"), OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
TOLD = (SvmError, ValueError, KeyboardInterrupt)

STUCK = """
import sys
from pathlib import Path
from streaming_vlm_mlx.atomic import {method}
with {method}(Path(sys.argv[1])) as part:
    (part / "new" if part.is_dir() else part).write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@contextmanager
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def fail_in(block: AbstractContextManager[Path], error: BaseException) -> None:
    with block as part:
        (part / "half" if part.is_dir() else part).write_text("half", encoding="utf-8")
        raise error


def test_text_is_written_below_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    with usual_mask():
        write_text(path, "ça\n")
    assert path.read_bytes() == "ça\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert names(path.parent) == ["b.txt"]


@pytest.mark.parametrize("error", BREAKS, ids=repr)
def test_a_file_stays_as_it_was_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(TOLD):
        fail_in(replacing(path), error)
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["kept.txt"]


@pytest.mark.parametrize("error", BREAKS, ids=repr)
def test_a_folder_stays_as_it_was_when_writing_fails(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "kept"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(TOLD):
        fail_in(replacing_folder(path), error)
    assert names(path) == ["old"]
    assert names(tmp_path) == ["kept"]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    for block in (replacing(tmp_path / "out"), replacing_folder(tmp_path / "run")):
        with pytest.raises(
            SvmError, match=r"cannot be written: No space left on device\. Free some space, or choose another path\.$"
        ):
            fail_in(block, OSError(errno.ENOSPC, "No space left on device"))


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for content in ("first", "second"):
        with usual_mask(), replacing_folder(path) as part:
            (part / content).touch()
    assert names(path) == ["second"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert names(tmp_path) == ["run"]


def folder_with(path: Path, name: str) -> Path:
    path.mkdir()
    (path / name).touch()
    return path


def interrupt_after_first_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise KeyboardInterrupt as soon as the first folder is renamed, as a signal's handler may."""
    rename = Path.rename
    interrupts = iter([KeyboardInterrupt()])

    def rename_and_interrupt(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        for interrupt in interrupts:
            raise interrupt
        return moved

    monkeypatch.setattr(Path, "rename", rename_and_interrupt)


@pytest.mark.parametrize("exchanges", [True, False])
def test_an_interrupt_while_folders_are_swapped_leaves_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    path = folder_with(tmp_path / "run", "old")
    interrupt_after_first_rename(monkeypatch)
    if not exchanges:
        monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    with contextlib.suppress(KeyboardInterrupt), replacing_folder(path) as part:
        (part / "new").touch()
    assert names(tmp_path) == ["run"]
    assert names(path) == (["new"] if exchanges else ["old"])


def test_a_folder_left_between_two_renames_comes_back_at_the_next_write(tmp_path: Path) -> None:
    folder_with(tmp_path / ".run.0123abcd.old", "old")
    with pytest.raises(ValueError, match="defect"):
        fail_in(replacing_folder(tmp_path / "run"), ValueError("a defect"))
    assert names(tmp_path) == ["run"]
    assert names(tmp_path / "run") == ["old"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_with(tmp_path / "run", "old")
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith(".old"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    monkeypatch.setattr(atomic, "exchange", lambda *_: False)
    with pytest.raises(SvmError, match="Input/output error"), replacing_folder(path):
        pass
    assert names(path) == ["old"]
    assert names(tmp_path) == ["run"]


def test_exchange_swaps_two_folders_or_leaves_both(tmp_path: Path) -> None:
    first, second = (folder_with(tmp_path / name, name) for name in ("a", "b"))
    swapped = atomic.exchange(first, second)
    assert (names(first), names(second)) == ((["b"], ["a"]) if swapped else (["a"], ["b"]))
    with pytest.raises(FileNotFoundError) if swapped else contextlib.nullcontext():
        atomic.exchange(first, tmp_path / "absent")


def test_the_umask_of_the_process_is_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def set_mask(mask: int) -> int:
        raise AssertionError("the umask is the process's: another thread's file would get a wrong mode")

    monkeypatch.setattr(os, "umask", set_mask)
    write_text(tmp_path / "a.txt", "text")
    with replacing_folder(tmp_path / "run"):
        pass
    assert names(tmp_path) == ["a.txt", "run"]


@pytest.mark.parametrize("there", [True, False])
def test_a_linked_file_is_replaced_behind_its_link(tmp_path: Path, there: bool) -> None:
    target, link = tmp_path / "run-1.txt", tmp_path / "latest.txt"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert names(tmp_path) == ["latest.txt", "run-1.txt"]


def test_a_linked_folder_is_replaced_behind_its_link(tmp_path: Path) -> None:
    target, link = tmp_path / "run-1", tmp_path / "latest"
    target.mkdir()
    link.symlink_to(target)
    with replacing_folder(link) as part:
        (part / "new").touch()
    assert link.is_symlink()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["latest", "run-1"]


def test_what_is_of_the_other_kind_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SvmError, match="file is a file, not a folder"), replacing_folder(tmp_path / "file"):
        pass
    for name in ("folder", "pipe"):
        with pytest.raises(SvmError, match=f"{name} is not a regular file"):
            write_text(tmp_path / name, "text")
    assert names(tmp_path) == ["file", "folder", "pipe"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SvmError, match="cannot be written"):
        write_text(tmp_path / "file" / "out.txt", "text")
    with pytest.raises(SvmError, match="cannot be written"), replacing_folder(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("method", ["replacing", "replacing_folder"])
def test_a_killed_process_leaves_the_old_in_place(tmp_path: Path, method: str) -> None:
    path = tmp_path / "kept"
    old = path / "old" if method == "replacing_folder" else path
    old.parent.mkdir(exist_ok=True)
    old.write_text("whole", encoding="utf-8")
    command = [sys.executable, "-c", STUCK.format(method=method), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
    assert old.read_text(encoding="utf-8") == "whole"


def test_the_temporary_file_of_a_killed_process_is_removed_and_that_of_a_living_one_kept(tmp_path: Path) -> None:
    out, other = tmp_path / "a.mp4", tmp_path / ".a.mp4.notes"
    (tmp_path / ".a.mp4.0123abcd").write_text("half")
    other.write_text("mine")
    with replacing(out) as first:
        assert sorted(tmp_path.iterdir()) == sorted([first, other])
        with replacing(out) as second:
            assert first.exists()
            second.write_text("second")
        first.write_text("first")
    assert sorted(tmp_path.iterdir()) == sorted([out, other])
    assert out.read_text() == "first"


def test_the_temporary_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_kept(tmp_path: Path) -> None:
    out = tmp_path / "small"
    folder_with(tmp_path / ".small.0123abcd", "half")
    # What was replaced when the process was killed, on a file system that does not exchange.
    folder_with(tmp_path / ".small.4567abcd.old", "old")
    other = folder_with(tmp_path / ".small.mine", "mine")
    folder_with(out, "first")
    with replacing_folder(out) as first:
        assert sorted(tmp_path.iterdir()) == sorted([first, other, out])
        with replacing_folder(out) as second:
            assert first.exists()
            (second / "second").touch()
        (first / "third").touch()
    assert names(tmp_path) == [".small.mine", "small"]
    assert names(out) == ["third"]
